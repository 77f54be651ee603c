"""Read arXiv's API format: Atom feeds with arXiv's and OpenSearch's extensions.

The format is that of the arXiv API user's manual: a ``feed`` with one ``entry`` for each paper,
whose ``id`` is the address of the abstract page with a version (``.../abs/2006.00719v3``), whose
``published`` is the day of the first version, and whose ``title`` and ``summary`` are wrapped at
some width. An unusable query is answered with success and a single entry whose ``id`` lies under
``/api/errors``; too many queries with a plain line of text instead of a feed.
"""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from urllib.parse import urlsplit, urlunsplit
from xml.etree import ElementTree

from anyorder_papers.errors import PapersError

ATOM = "{http://www.w3.org/2005/Atom}"
ARXIV = "{http://arxiv.org/schemas/atom}"
HOSTS = ("export.arxiv.org", "arxiv.org")
MAX_BYTES = 20_000_000  # the API answers at most 2,000 entries at a time, about 5 MB
TIMEOUT = 30.0  # seconds

_ID = re.compile(r"https?://arxiv\.org/abs/(.+?)(?:v\d+)?")


class ArxivError(PapersError):
    """A feed that cannot be read or an address that is not arXiv's; the message says why."""


@dataclass(frozen=True)
class Preprint:
    """One entry of a feed.

    Args:
        id: arXiv number without version, e.g. ``"2006.00719"`` or ``"hep-ex/0307015"``.
        title: Title on one line.
        abstract: Abstract on one line.
        authors: Number of authors; ``None`` where the feed names none.
        date: Day of the first version.
        category: Primary category, e.g. ``"cs.LG"``; empty if not given.
    """

    id: str
    title: str
    abstract: str
    authors: int | None
    date: date
    category: str = ""


def parse_feed(data: bytes) -> tuple[Preprint, ...]:
    """Parse an Atom feed of the arXiv API.

    Document type declarations are refused, so no entity is ever defined or expanded.

    Args:
        data: The answer's bytes, UTF-8.

    Returns:
        The papers in the order of the feed.

    Raises:
        ArxivError: If the data are not such a feed, or are arXiv's report of an error.
    """
    if len(data) > MAX_BYTES:
        raise ArxivError(f"expected a feed of at most {MAX_BYTES:,} bytes, got {len(data):,}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArxivError(f"expected an Atom feed in UTF-8 ({error})") from error
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ArxivError("refused: the feed declares a document type, which arXiv's never do")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ArxivError(f"expected an Atom feed, got {text.strip()[:60]!r} ({error})") from error
    if root.tag != f"{ATOM}feed":
        raise ArxivError(f"expected an Atom <feed>, got <{root.tag}>")
    return tuple(_entry(entry) for entry in root.findall(f"{ATOM}entry"))


def fetch(url: str, opener: Callable[[urllib.request.Request], bytes] | None = None) -> bytes:
    """Get a feed from the arXiv API.

    Args:
        url: Address of a query, e.g.
            ``https://export.arxiv.org/api/query?search_query=cat:math.OC&max_results=20``.
        opener: What makes the request; the network if left out.

    Raises:
        ArxivError: If the address is not arXiv's, or it does not answer.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or parts.netloc not in HOSTS:
        raise ArxivError(
            f"expected an address of the arXiv API (https://{HOSTS[0]}/api/query?...), got {url!r}"
        )
    safe = urlunsplit(parts._replace(scheme="https"))
    request = urllib.request.Request(safe, headers={"User-Agent": "anyorder-papers"})
    try:
        return (opener or _open)(request)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise ArxivError(f"{safe} did not answer ({error}); try again later") from error


class ArxivOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirections to arXiv over HTTPS, and refuses all others."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        """Follow a redirection only to arXiv, over HTTPS."""
        parts = urlsplit(newurl)
        if parts.scheme != "https" or parts.netloc not in HOSTS:
            raise ArxivError(f"refused: arXiv redirected to {newurl!r}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(request: urllib.request.Request) -> bytes:
    opener = urllib.request.build_opener(ArxivOnly)
    with opener.open(request, timeout=TIMEOUT) as answer:
        # One byte more than allowed: parse_feed then refuses the feed instead of a cut one.
        return answer.read(MAX_BYTES + 1)


def _entry(entry: ElementTree.Element) -> Preprint:
    identity, title = _text(entry, "id"), _text(entry, "title")
    if "/api/errors" in identity:
        raise ArxivError(f"arXiv answered with an error: {_text(entry, 'summary') or title}")
    match = _ID.fullmatch(identity)
    if match is None:
        raise ArxivError(
            f"expected the address of an arXiv abstract as an entry's id, got {identity!r}"
        )
    if not title:
        raise ArxivError(f"arXiv gives no title for {match[1]}: is there such a paper?")
    published = _text(entry, "published")
    try:
        day = date.fromisoformat(published[:10])
    except ValueError as error:
        raise ArxivError(
            f"{match[1]}: expected a day such as 2020-06-01T17:59:59Z, got {published!r}"
        ) from error
    category = entry.find(f"{ARXIV}primary_category")
    return Preprint(
        id=match[1],
        title=title,
        abstract=_text(entry, "summary"),
        authors=len(entry.findall(f"{ATOM}author")) or None,
        date=day,
        category=category.get("term", "") if category is not None else "",
    )


def _text(entry: ElementTree.Element, name: str) -> str:
    return " ".join((entry.findtext(f"{ATOM}{name}") or "").split())

"""Reads feeds of the arXiv API: Atom with arXiv's and OpenSearch's extensions.

The format is that of the arXiv API user's manual: a ``feed`` with one ``entry`` for each paper,
whose ``id`` is the URL of the abstract page with a version (``.../abs/2006.00719v3``), whose
``published`` is the date of the first version, and whose ``title`` and ``summary`` contain line
breaks. For an invalid query, the response has a success status and a single entry whose ``id`` is
below ``/api/errors``; for too many queries, it is a line of plain text instead of a feed.
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
MAX_BYTES = 20_000_000  # the API returns at most 2,000 entries per request, about 5 MB
TIMEOUT = 30.0  # seconds

_ID = re.compile(r"https?://arxiv\.org/abs/(.+?)(?:v\d+)?")


class ArxivError(PapersError):
    """A feed that cannot be read, or a URL that is not arXiv's; the message gives the reason."""


@dataclass(frozen=True)
class Preprint:
    """One entry of a feed.

    Args:
        id: arXiv number without version, e.g. ``"2006.00719"`` or ``"hep-ex/0307015"``.
        title: Title on one line.
        abstract: Abstract on one line.
        authors: Number of authors; ``None`` if the feed has none.
        date: Date of the first version.
        category: Primary category, e.g. ``"cs.LG"``; empty if missing.
    """

    id: str
    title: str
    abstract: str
    authors: int | None
    date: date
    category: str = ""


def parse_feed(data: bytes) -> tuple[Preprint, ...]:
    """Parse an Atom feed of the arXiv API.

    Document type declarations are rejected, so entities are never defined or expanded.

    Args:
        data: The bytes of the response, UTF-8.

    Returns:
        The papers, in the order of the feed.

    Raises:
        ArxivError: If the data are not such a feed, or report an error of the API.
    """
    if len(data) > MAX_BYTES:
        raise ArxivError(f"expected a feed of at most {MAX_BYTES:,} bytes, got {len(data):,}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArxivError(f"expected an Atom feed in UTF-8 ({error})") from error
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ArxivError("refused: the feed declares a document type; arXiv's feeds never do")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ArxivError(f"expected an Atom feed, got {text.strip()[:60]!r} ({error})") from error
    if root.tag != f"{ATOM}feed":
        raise ArxivError(f"expected an Atom <feed>, got <{root.tag}>")
    return tuple(_entry(entry) for entry in root.findall(f"{ATOM}entry"))


def fetch(url: str, opener: Callable[[urllib.request.Request], bytes] | None = None) -> bytes:
    """Download a feed from the arXiv API.

    Args:
        url: URL of a query, e.g.
            ``https://export.arxiv.org/api/query?search_query=cat:math.OC&max_results=20``.
        opener: Makes the request (default: over the network).

    Raises:
        ArxivError: If the URL is not arXiv's, or the server does not respond.
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
    """Follows redirects to arXiv over HTTPS and rejects all others."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        """Follow a redirect only to arXiv over HTTPS."""
        parts = urlsplit(newurl)
        if parts.scheme != "https" or parts.netloc not in HOSTS:
            raise ArxivError(f"refused: arXiv redirected to {newurl!r}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(request: urllib.request.Request) -> bytes:
    opener = urllib.request.build_opener(ArxivOnly)
    with opener.open(request, timeout=TIMEOUT) as answer:
        # One byte more than allowed: parse_feed then rejects the feed instead of parsing a
        # truncated one.
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

"""Feeds in the form of the arXiv API's manual, and what must be refused."""

from __future__ import annotations

import urllib.error
import urllib.request
from datetime import date

import pytest

from anyorder_papers import arxiv
from anyorder_papers.arxiv import ArxivError, Preprint, fetch, parse_feed

# Written by the API's user manual: wrapped titles, versions, affiliations, extension elements.
FEED = """<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom" xmlns:arxiv="http://arxiv.org/schemas/atom"
      xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/">
  <link href="http://arxiv.org/api/query?search_query=all:fog" rel="self"
        type="application/atom+xml"/>
  <title type="html">ArXiv Query: search_query=all:fog&amp;start=0&amp;max_results=2</title>
  <id>http://arxiv.org/api/cHxbiOdZaP56ODnBPIenZhzg5f8</id>
  <updated>2026-01-02T00:00:00-05:00</updated>
  <opensearch:totalResults>1000</opensearch:totalResults>
  <opensearch:startIndex>0</opensearch:startIndex>
  <opensearch:itemsPerPage>2</opensearch:itemsPerPage>
  <entry>
    <id>http://arxiv.org/abs/2512.01234v2</id>
    <updated>2025-12-20T10:00:00Z</updated>
    <published>2025-12-01T17:59:59Z</published>
    <title>Walking downhill
      in the fog: $a &lt; b$ &amp; beyond</title>
    <summary>  We walk
downhill.
    </summary>
    <author><name>Ada Example</name>
      <arxiv:affiliation>University of Somewhere</arxiv:affiliation></author>
    <author><name>Bo Beispiel</name></author>
    <arxiv:comment>12 pages, 3 figures</arxiv:comment>
    <arxiv:journal_ref>J. Fog 1 (2026) 1-12</arxiv:journal_ref>
    <link title="doi" href="http://dx.doi.org/10.1000/fog" rel="related"/>
    <link href="http://arxiv.org/abs/2512.01234v2" rel="alternate" type="text/html"/>
    <link title="pdf" href="http://arxiv.org/pdf/2512.01234v2" rel="related"
          type="application/pdf"/>
    <arxiv:primary_category term="math.OC" scheme="http://arxiv.org/schemas/atom"/>
    <category term="math.OC" scheme="http://arxiv.org/schemas/atom"/>
    <category term="cs.LG" scheme="http://arxiv.org/schemas/atom"/>
  </entry>
  <entry>
    <id>https://arxiv.org/abs/hep-ex/0307015v1</id>
    <published>2003-07-07T13:46:39-04:00</published>
    <title>An old number</title>
    <summary></summary>
  </entry>
</feed>
"""

ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom">
  <title type="html">ArXiv Query: id_list=1234.12345</title>
  <entry>
    <id>http://arxiv.org/api/errors#incorrect_id_format_for_1234.123456</id>
    <title>Error</title>
    <summary>incorrect id format for 1234.123456</summary>
    <author><name>arXiv api core</name></author>
  </entry>
</feed>
"""

EMPTY = '<feed xmlns="http://www.w3.org/2005/Atom"><title>none</title></feed>'

BOMB = """<?xml version="1.0"?>
<!DOCTYPE feed [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>
<feed xmlns="http://www.w3.org/2005/Atom"><entry><title>&b;</title></entry></feed>
"""


def test_papers_of_a_feed() -> None:
    assert parse_feed(FEED.encode()) == (
        Preprint(
            id="2512.01234",
            title="Walking downhill in the fog: $a < b$ & beyond",
            abstract="We walk downhill.",
            authors=2,
            date=date(2025, 12, 1),
            category="math.OC",
        ),
        Preprint("hep-ex/0307015", "An old number", "", None, date(2003, 7, 7)),
    )


def test_empty_feed_and_byte_order_mark() -> None:
    assert parse_feed(EMPTY.encode()) == ()
    assert len(parse_feed(b"\xef\xbb\xbf" + FEED.encode())) == 2


def test_arxiv_reports_an_error_with_success() -> None:
    with pytest.raises(ArxivError, match="incorrect id format for"):
        parse_feed(ERROR.encode())


@pytest.mark.parametrize(
    "data",
    [
        BOMB.encode(),
        BOMB.encode("utf-16"),
        b'<!DOCTYPE feed SYSTEM "file:///etc/hostname">' + EMPTY.encode(),
        b'<?xml version="1.0"?><!-- x --><!DOCTYPE feed>' + EMPTY.encode(),
    ],
    ids=["entities", "utf-16", "external", "after a comment"],
)
def test_document_types_are_refused(data: bytes) -> None:
    with pytest.raises(ArxivError, match=r"document type|UTF-8"):
        parse_feed(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"Rate exceeded.", "expected an Atom feed, got 'Rate exceeded.'"),
        (b"", "expected an Atom feed"),
        (b"<html><body/></html>", "expected an Atom <feed>, got <html>"),
        (FEED.replace("2025-12-01T17:59:59Z", "yesterday").encode(), "expected a day .*yesterday"),
        (FEED.replace("/abs/2512.01234v2</id>", "/pdf/2512.01234v2</id>").encode(), "abstract as"),
        (FEED.replace("An old number", " ").encode(), "no title for hep-ex/0307015"),
        (FEED[: len(FEED) // 2].encode(), "expected an Atom feed"),
    ],
)
def test_what_is_no_feed_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ArxivError, match=message):
        parse_feed(data)


def test_a_feed_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arxiv, "MAX_BYTES", 100)
    with pytest.raises(ArxivError, match="at most 100 bytes"):
        parse_feed(FEED.encode())


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/hostname",
        "https://example.org/api/query",
        "https://arxiv.org.example.org/api/query",
        "https://user@arxiv.org/api/query",
        "https://arxiv.org:8443/api/query",
        "ftp://export.arxiv.org/api/query",
        "export.arxiv.org/api/query",
    ],
)
def test_only_arxiv_is_asked(url: str) -> None:
    def never(request: urllib.request.Request) -> bytes:
        raise AssertionError(f"asked {request.full_url}")

    with pytest.raises(ArxivError, match="address of the arXiv API"):
        fetch(url, never)


def test_asked_over_https_with_a_name() -> None:
    asked: list[urllib.request.Request] = []

    def answer(request: urllib.request.Request) -> bytes:
        asked.append(request)
        return FEED.encode()

    data = fetch("http://export.arxiv.org/api/query?id_list=2512.01234", answer)
    assert len(parse_feed(data)) == 2
    assert asked[0].full_url == "https://export.arxiv.org/api/query?id_list=2512.01234"
    assert asked[0].get_header("User-agent") == "anyorder-papers"


def test_no_answer_is_explained() -> None:
    def silent(request: urllib.request.Request) -> bytes:
        raise urllib.error.URLError("no route")

    with pytest.raises(ArxivError, match=r"did not answer .*no route.*; try"):
        fetch("https://export.arxiv.org/api/query?id_list=2512.01234", silent)


def test_redirections_stay_with_arxiv() -> None:
    handler = arxiv.ArxivOnly()
    request = urllib.request.Request("https://arxiv.org/api/query")
    for bad in ("https://example.org/", "http://arxiv.org/", "file:///etc/hostname"):
        with pytest.raises(ArxivError, match="redirected"):
            handler.redirect_request(request, None, 301, "Moved", {}, bad)
    good = handler.redirect_request(
        request, None, 301, "Moved", {}, "https://export.arxiv.org/api/query"
    )
    assert good is not None
    assert good.full_url == "https://export.arxiv.org/api/query"

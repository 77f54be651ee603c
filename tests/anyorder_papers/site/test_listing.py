"""Search, filters, order and pages."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from anyorder_papers.catalogue import Paper
from anyorder_papers.search import search
from anyorder_papers.site.entries import Library, library
from anyorder_papers.site.listing import (
    Query,
    choices,
    listing,
    select,
    verdict_choices,
)


def ids(library: Library, **query: str) -> list[int]:
    return [e.paper.id for e in select(library, Query.read(query), {12: 2, 104: 5}, search)]


def test_a_page_that_is_no_number_is_the_first() -> None:
    for text in ("123456x", "1e3", "-1", "٣", "9" * 5000, ""):
        assert Query.read({"page": text}).page == 1
    assert Query.read({"page": "12"}).page == 12


def test_everything_comes_newest_first_and_undated_last(small_library: Library) -> None:
    assert ids(small_library) == [12, 104, 1001, 71, 100]


def test_each_filter_compares_its_own_value(small_library: Library) -> None:
    assert ids(small_library, topic="zeroth") == [12]
    assert ids(small_library, order="1") == [71]
    assert ids(small_library, state="no system") == [104]
    assert ids(small_library, verdict="refuted") == [100]
    assert ids(small_library, verdict="not run yet") == [12]
    assert ids(small_library, topic="zeroth", order="1") == []
    assert ids(small_library, topic="no such topic") == []


def test_search_ranks_and_other_orders_keep_only_the_hits(small_library: Library) -> None:
    assert ids(small_library, q="little memory")[0] == 12
    assert ids(small_library, q="sign")[0] == 71
    assert ids(small_library, q="sign", topic="zeroth") == []
    assert ids(small_library, q="xyzzy") == []
    found = ids(small_library, q="sets order")
    assert sorted(ids(small_library, q="sets order", sort="title")) == sorted(found)


def test_orders(small_library: Library) -> None:
    assert ids(small_library, sort="votes")[:2] == [104, 12]
    assert ids(small_library, sort="title")[1:] == [104, 100, 71, 12]


def test_an_address_is_read_with_care() -> None:
    query = Query.read({"q": "  a \n b ", "sort": "evil", "page": "-1"})
    assert query == Query(q="a b")
    assert Query.read({"page": "3"}).page == 3
    assert Query.read({"page": "²"}).page == 1
    assert Query.read({"page": "9" * 400}).page >= 1
    assert len(Query.read({"q": "x" * 10_000}).q) == 200


def test_links_keep_the_filters_and_start_at_the_first_page() -> None:
    query = Query(q="a&b", topic="zeroth", page=3)
    assert query.link() == "?q=a%26b&topic=zeroth"
    assert query.link(page=4) == "?q=a%26b&topic=zeroth&page=4"
    assert query.link(page=1) == "?q=a%26b&topic=zeroth"
    assert Query().link() == ""


def test_pages(make_paper: Callable[..., Paper]) -> None:
    many = library([make_paper(n) for n in range(1, 121)], [])
    first = listing(many.entries, Query())
    assert (first.found, first.page, first.pages) == (120, 1, 3)
    shown = [entry.paper.id for _, group in first.groups for entry in group]
    assert shown == list(range(1, 51))
    last = listing(many.entries, Query(page=99))
    assert last.page == 3
    assert sum(len(group) for _, group in last.groups) == 20
    assert listing((), Query()).pages == 1
    assert listing(many.entries, Query(), per_page=None).pages == 1


@pytest.mark.parametrize(
    ("query", "headings"),
    [
        (Query(), ["2025", "2024", "2023", "Without a date"]),
        (Query(q="x", sort="date"), ["2025", "2024", "2023", "Without a date"]),
        (Query(q="x"), [""]),
        (Query(sort="title"), [""]),
    ],
)
def test_headings_are_years_where_the_order_is_by_date(
    small_library: Library, query: Query, headings: list[str]
) -> None:
    assert [name for name, _ in listing(small_library.entries, query).groups] == headings


def test_choices_have_counts_and_a_readers_order(small_library: Library) -> None:
    assert choices(small_library.entries, "order") == [("0", 1), ("1", 1), ("none", 3)]
    assert choices(small_library.entries, "verdict") == [
        ("reproduced", 1),
        ("refuted", 1),
        ("not run yet", 1),
    ]
    assert choices(small_library.entries, "topic")[-1] == ("unsorted", 1)
    assert verdict_choices(small_library) == [("reproduced", 2), ("refuted", 1)]

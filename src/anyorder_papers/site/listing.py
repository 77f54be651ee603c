"""Entries of a list and their order: search, filters, sorting and pagination."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from urllib.parse import urlencode

from anyorder_papers.catalogue import ORDERS, STATES, TOPICS, Paper
from anyorder_papers.search import Hit
from anyorder_papers.site.entries import NOT_RUN, VERDICTS, Entry, Library

Search = Callable[[str, Sequence[Paper]], Iterable[Hit]]

FILTERS = ("topic", "order", "state", "verdict")
SORTS = ("date", "votes", "title")
PER_PAGE = 50
LONGEST_QUERY = 200
# Hits below this fraction of the best score share only a common word with the query.
WEAKEST = 0.2


@dataclass(frozen=True)
class Query:
    """Query parameters of the list; an empty string means no restriction."""

    q: str = ""
    topic: str = ""
    order: str = ""
    state: str = ""
    verdict: str = ""
    sort: str = ""
    page: int = 1

    @classmethod
    def read(cls, parameters: Mapping[str, str]) -> Query:
        """Parse the parameters of a URL; invalid values mean no restriction."""
        chosen = {name: parameters.get(name, "").strip()[:LONGEST_QUERY] for name in FILTERS}
        sort = parameters.get("sort", "")
        number = parameters.get("page", "")
        return cls(
            q=" ".join(parameters.get("q", "").split())[:LONGEST_QUERY],
            sort=sort if sort in SORTS else "",
            page=max(1, int(number)) if re.fullmatch("[0-9]{1,6}", number) else 1,
            **chosen,
        )

    @property
    def restricted(self) -> bool:
        """Whether there is a restriction other than order and page."""
        return bool(self.q or any(getattr(self, name) for name in FILTERS))

    def link(self, **changes: str | int) -> str:
        """The query string of the URL, with some values changed and without empty values."""
        names = ("q", *FILTERS, "sort", "page")
        values = {name: changes.get(name, getattr(self, name)) for name in names}
        if "page" not in changes or values["page"] == 1:
            values["page"] = ""
        text = urlencode({name: value for name, value in values.items() if value})
        return f"?{text}" if text else ""


@dataclass(frozen=True)
class Listing:
    """One page of a list.

    Args:
        groups: Entries by heading, which is empty unless they are sorted by date.
        found: Number of entries on all pages.
        page: Number of this page, from 1.
        pages: Number of pages, at least 1.
    """

    groups: tuple[tuple[str, tuple[Entry, ...]], ...]
    found: int
    page: int
    pages: int


@dataclass(frozen=True)
class Month:
    """The papers of one month; its anchor is ``2025-11``, or ``undated``."""

    anchor: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Year:
    """The months of one year, newest first; its name is ``2025``, or ``Without a date``."""

    name: str
    months: tuple[Month, ...]

    @property
    def total(self) -> int:
        """Number of papers in the year."""
        return sum(len(month.entries) for month in self.months)


def by_date(entries: Sequence[Entry]) -> tuple[Year, ...]:
    """Group entries, newest first, by years and months."""
    return tuple(
        Year(
            name,
            tuple(
                Month(anchor, tuple(group))
                for anchor, group in groupby(of_year, key=lambda entry: entry.month)
            ),
        )
        for name, of_year in groupby(entries, key=lambda entry: entry.year)
    )


def field_of(entry: Entry, name: str) -> str:
    """The value of an entry for a filter."""
    return entry.verdict if name == "verdict" else str(getattr(entry.paper, name))


def choices(entries: Sequence[Entry], name: str) -> list[tuple[str, int]]:
    """The values of a filter with their numbers of entries, in display order."""
    known = {
        "topic": tuple(TOPICS),
        "order": tuple(ORDERS),
        "state": tuple(STATES),
        "verdict": (*VERDICTS, NOT_RUN),
    }[name]
    counts = Counter(value for entry in entries if (value := field_of(entry, name)))
    first = [value for value in known if value in counts]
    return [(value, counts[value]) for value in (*first, *sorted(set(counts) - set(first)))]


def verdict_choices(library: Library) -> list[tuple[str, int]]:
    """The verdicts in the gallery with their numbers of studies."""
    counts = Counter(study.verdict for _, study in library.studied)
    return [(verdict, counts[verdict]) for verdict in VERDICTS if counts[verdict]]


def select(library: Library, query: Query, votes: Mapping[int, int], search: Search) -> list[Entry]:
    """Return the entries that match a query, in its order.

    Args:
        library: All entries.
        query: The query.
        votes: Votes by paper.
        search: Finds papers by a text, best first.
    """
    entries = list(library.entries)
    if query.q:
        hits = list(search(query.q, library.papers))
        weakest = WEAKEST * max((hit.score for hit in hits), default=0.0)
        found = [library.by_id[hit.paper.id] for hit in hits if hit.score >= weakest]
        ids = {entry.paper.id for entry in found}
        # Sorting is stable, so ties stay "newest first".
        entries = [e for e in entries if e.paper.id in ids] if query.sort else found
    kept = [
        entry
        for entry in entries
        if all(getattr(query, name) in ("", field_of(entry, name)) for name in FILTERS)
    ]
    if query.sort == "votes":
        kept.sort(key=lambda entry: -votes.get(entry.paper.id, 0))
    elif query.sort == "title":
        kept.sort(key=lambda entry: entry.paper.title.casefold())
    return kept


def listing(entries: Sequence[Entry], query: Query, per_page: int | None = PER_PAGE) -> Listing:
    """Split a selection into pages, and a page into years if it is sorted by date."""
    size = per_page or max(1, len(entries))
    pages = max(1, -(-len(entries) // size))
    page = min(query.page, pages)
    shown = entries[(page - 1) * size : page * size]
    by_date = query.sort == "date" or not (query.sort or query.q)
    groups = groupby(shown, key=lambda entry: entry.year if by_date else "")
    return Listing(
        tuple((heading, tuple(group)) for heading, group in groups), len(entries), page, pages
    )

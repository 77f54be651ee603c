"""Which entries a list shows, in which order: search, filters, sorting and pages."""

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
# Hits below this part of the best score share one common word with the question, and no more.
WEAKEST = 0.2


@dataclass(frozen=True)
class Query:
    """What a visitor asked the list for; an empty text means no restriction."""

    q: str = ""
    topic: str = ""
    order: str = ""
    state: str = ""
    verdict: str = ""
    sort: str = ""
    page: int = 1

    @classmethod
    def read(cls, parameters: Mapping[str, str]) -> Query:
        """Read the parameters of an address; what is not understood means no restriction."""
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
        """Whether anything but order and page was asked for."""
        return bool(self.q or any(getattr(self, name) for name in FILTERS))

    def link(self, **changes: str | int) -> str:
        """The address' query part, with some values changed; empty values are left out."""
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
        groups: Entries under a heading, which is empty where they are not sorted by date.
        found: How many entries there are on all pages.
        page: This page, from 1.
        pages: How many pages there are, at least 1.
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
        """How many papers the year has."""
        return sum(len(month.entries) for month in self.months)


def by_date(entries: Sequence[Entry]) -> tuple[Year, ...]:
    """Cut entries, newest first, into years and months."""
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
    """The value that a filter compares."""
    return entry.verdict if name == "verdict" else str(getattr(entry.paper, name))


def choices(entries: Sequence[Entry], name: str) -> list[tuple[str, int]]:
    """The values of a filter with their numbers of entries, in a reader's order."""
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
    """The entries that a query asks for, in its order.

    Args:
        library: All of them.
        query: What was asked.
        votes: By paper.
        search: Finds papers by a text, best first.
    """
    entries = list(library.entries)
    if query.q:
        hits = list(search(query.q, library.papers))
        weakest = WEAKEST * max((hit.score for hit in hits), default=0.0)
        found = [library.by_id[hit.paper.id] for hit in hits if hit.score >= weakest]
        ids = {entry.paper.id for entry in found}
        # Sorted by anything else, the list keeps "newest first" where that says nothing.
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
    """Cut a selection into pages, and one page into years where it is sorted by date."""
    size = per_page or max(1, len(entries))
    pages = max(1, -(-len(entries) // size))
    page = min(query.page, pages)
    shown = entries[(page - 1) * size : page * size]
    by_date = query.sort == "date" or not (query.sort or query.q)
    groups = groupby(shown, key=lambda entry: entry.year if by_date else "")
    return Listing(
        tuple((heading, tuple(group)) for heading, group in groups), len(entries), page, pages
    )

"""Cells of tables, with formatted text and the exact value."""

from __future__ import annotations

import math
from dataclasses import dataclass

from anyorder.compare.report.formats import show, show_interval
from anyorder.compare.stats.estimators import Interval
from anyorder.compare.stats.leaderboard import Row, ends_of, summarise
from anyorder.compare.store.schema import MethodRecord, Results


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: The displayed text.
        value: The unrounded number; None if there is none.
        small: Small print below, such as an interval.
        method: Index of the method whose mark precedes the text.
        word: A word that selects the colour, such as a verdict.
    """

    text: str
    value: float | None = None
    small: str = ""
    method: int | None = None
    word: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Column heads and rows of cells; ``methods`` are the method indices of the rows."""

    caption: str
    head: list[str]
    rows: list[list[Cell]]
    methods: list[int] | None = None

    def __post_init__(self) -> None:
        """Check that every row has one cell per head."""
        assert all(len(row) == len(self.head) for row in self.rows), self.caption


def number(value: float | None, text: str | None = None, small: str = "") -> Cell:
    """A cell with a number, and a text other than the usual one."""
    known = value is not None and math.isfinite(value)
    return Cell(show(value) if text is None else text, value if known else None, small)


def named(index: int, method: MethodRecord, small: str = "") -> Cell:
    """A cell with the name of a method, after its mark."""
    return Cell(method.name, small=small, method=index)


def bounds(spread: Interval | None) -> str:
    """Both ends of an interval in brackets; empty if there is none."""
    return show_interval(*ends_of(spread))


def used(table: Table) -> Table:
    """The table without empty columns."""
    kept = [
        i
        for i, name in enumerate(table.head)
        if not table.rows or not name or any(row[i].text for row in table.rows)
    ]
    rows = [[row[i] for i in kept] for row in table.rows]
    return Table(table.caption, [table.head[i] for i in kept], rows, table.methods)


def best_first(results: Results) -> list[tuple[int, MethodRecord, Row]]:
    """Index, record and summary of every method, best first."""
    names = [method.name for method in results.methods]
    return [(i := names.index(row.name), results.methods[i], row) for row in summarise(results)]

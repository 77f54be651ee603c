from __future__ import annotations

import math

import example_results as example
import pytest

from anyorder.compare.report.cells import Cell, Table, best_first, bounds, named, number, used
from anyorder.compare.stats.estimators import Interval


def test_numbers_keep_their_exact_value() -> None:
    assert number(0.123456789) == Cell("0.1235", 0.123456789)
    assert number(3.0, "three", "small") == Cell("three", 3.0, "small")
    assert (number(math.inf), number(None)) == (Cell("\u221e"), Cell("\u2014"))


def test_intervals_are_in_brackets() -> None:
    assert bounds(Interval(0.5, 2.0)) == "[0.5, 2]"
    assert bounds(None) == ""


def test_every_row_has_all_columns() -> None:
    with pytest.raises(AssertionError, match="odd"):
        Table("odd", ["a", "b"], [[Cell("1")]])


def test_empty_columns_are_left_out() -> None:
    rows = [[Cell("x"), Cell(""), Cell("")], [Cell(""), Cell(""), Cell("")]]
    found = used(Table("t", ["a", "b", ""], rows, [4, 2]))
    assert (found.head, found.methods) == (["a", ""], [4, 2])
    assert [len(row) for row in found.rows] == [2, 2]


def test_the_best_method_is_first_with_its_index() -> None:
    results = example.made_up({"worse": [[1.0, 0.5]] * 3, "better": [[1.0, 0.1]] * 3})
    assert [(i, method.name, row.name) for i, method, row in best_first(results)] == [
        (1, "better", "better"), (0, "worse", "worse"),
    ]  # fmt: skip
    assert named(1, results.methods[1], "small") == Cell("better", small="small", method=1)

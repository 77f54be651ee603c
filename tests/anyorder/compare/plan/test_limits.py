"""Budgets: the same limits for methods of all orders."""

from __future__ import annotations

import itertools

import pytest

from anyorder.compare.plan.limits import Limits, bytes_in, grid, prices, seconds
from anyorder.oracle.ledger import NOMINAL_RATES, BudgetError

MEASURED = {**NOMINAL_RATES, "grads": 2.5}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500grads", Limits(forwards=1500.0)),
        ("60s", Limits(seconds=60.0)),
        ("200steps", Limits(steps=200)),
        ("10products,500values", Limits(forwards=60.0)),
        ("100ranked,5s", Limits(forwards=100.0, seconds=5.0)),
        ("30forwards,100grads", Limits(forwards=30.0)),
    ],
)
def test_budgets_become_limits_for_everybody(text: str, expected: Limits) -> None:
    assert Limits.read(text, NOMINAL_RATES) == expected


def test_measured_rates_change_the_price() -> None:
    assert Limits.read("100grads", MEASURED).forwards == 250.0


@pytest.mark.parametrize("unit", ["rankings", "output_grads"])
def test_some_answers_have_no_price(unit: str) -> None:
    with pytest.raises(BudgetError, match=f"{unit} have no fixed price.* steps or seconds"):
        Limits.read(f"100{unit},5s", NOMINAL_RATES)


def test_durations() -> None:
    assert [seconds(text) for text in ("90s", "10m", "2h")] == [90.0, 600.0, 7200.0]
    with pytest.raises(BudgetError, match="expected a duration"):
        seconds("10steps")


def test_the_limit_that_comes_first_counts() -> None:
    limits = Limits(forwards=100.0, seconds=10.0)
    assert limits.spent(50.0, 1.0, 7) == 0.5
    assert limits.spent(50.0, 8.0, 7) == 0.8
    assert limits.to_dict() == {"forwards": 100.0, "seconds": 10.0}


def test_the_grid_is_denser_at_the_beginning() -> None:
    points = grid(20)
    gaps = [b - a for a, b in itertools.pairwise(points)]
    assert (points[0], points[-1], len(points)) == (0.0, 1.0, 21)
    assert gaps == sorted(gaps)


def test_what_was_not_measured_has_its_nominal_price() -> None:
    assert prices() == NOMINAL_RATES
    assert prices({"grads": 2.5, "products": None}) == MEASURED


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 8 * 2**30), ("500MB", 5 * 10**8), ("1.5 k", 1500), ("100", 100), ("7B", 7)],
)
def test_sizes(text: str, size: int) -> None:
    assert bytes_in(text) == size


@pytest.mark.parametrize("text", ["", "8 apples", "-1MB", "iB"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(BudgetError, match="expected a size such as 8GiB"):
        bytes_in(text)

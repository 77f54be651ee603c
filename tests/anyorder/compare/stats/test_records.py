from __future__ import annotations

import math
from typing import Any

import pytest

from anyorder.compare.stats.records import (
    cost,
    fields,
    final,
    judged_by,
    listed,
    main_axis,
    methods_of,
    number,
    rates_of,
    runs_of,
    succeeded,
)


def test_costs_of_a_point() -> None:
    point = {
        "seconds": 2.5,
        "steps": 4,
        "calls": {
            "values": 8,
            "grads": 2,
            "products": 1,
            "rankings": 3,
            "ranked": 30,
            "skipped": 9,
        },
    }
    assert cost(point, "seconds") == 2.5
    assert cost(point, "steps") == 4
    assert cost(point, "calls") == 14
    assert cost(point, "forwards") == 8 + 3 * 2 + 6 * 1 + 30
    assert cost(point, "forwards", {"values": 1.0, "grads": 2.0}) == 12
    assert cost({**point, "forwards": 7.0}, "forwards") == 7
    assert math.isnan(cost({}, "calls"))
    assert math.isnan(cost({}, "forwards"))


@pytest.mark.parametrize(
    ("budget", "axis"),
    [
        ("60s", "seconds"),
        ("2min", "seconds"),
        ("100steps", "steps"),
        ("500grads", "forwards"),
        ("5s,9values", "seconds"),
        ("what", "seconds"),
        (None, "seconds"),
    ],
)
def test_the_main_axis_is_the_one_of_the_budget(budget: str | None, axis: str) -> None:
    assert main_axis({"plan": {"budget": budget}}) == axis


def test_rates_are_those_the_comparison_went_by() -> None:
    table = {"nominal": {"grads": 4}, "measured": {"grads": 2.5, "products": None}}
    nominal = {"values": 1.0, "grads": 4.0, "products": 6.0, "ranked": 1.0}
    assert rates_of({"rates": table}) == nominal
    assert rates_of({"rates": {**table, "used": "nominal"}}) == nominal
    assert rates_of({"rates": {**table, "used": "measured"}}) == {**nominal, "grads": 2.5}
    assert rates_of({})["grads"] == 3.0


@pytest.mark.parametrize("value", [None, "many", [], {}])
def test_what_is_no_number_is_nan(value: object) -> None:
    assert math.isnan(number(value))


def test_what_is_not_there_is_empty() -> None:
    assert methods_of({}) == methods_of({"methods": None}) == []
    assert runs_of({"runs": [3]}) == [{}]
    assert (listed({"a": 1}), fields([1])) == ([], {})


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ({"status": "done", "final": {"loss": 1.0}}, True),
        ({"final": {"loss": 1.0}}, True),
        ({"status": "done", "final": {"loss": None}}, False),
        ({"status": "done", "final": {"loss": "nan"}}, False),
        ({"status": "diverged", "final": {"loss": 1.0}}, False),
        ({}, False),
    ],
)
def test_only_a_finished_run_with_a_finite_loss_succeeded(
    run: dict[str, Any], expected: bool
) -> None:
    assert succeeded(run) is expected


def test_a_run_without_result_has_the_worst_final_value() -> None:
    assert final({}, "loss") == math.inf
    assert final({}, "metric", "max") == -math.inf
    assert final({"final": {"loss": 1.0, "metric": None}}, "metric", "max") == -math.inf
    assert final({"final": {"loss": 1.0, "metric": 0.5}}, "metric", "max") == 0.5


def test_judged_by_the_metric_if_there_is_one() -> None:
    run = {"status": "done", "final": {"loss": 1.0, "metric": 0.5}}
    problem = {"goal": "max"}
    assert judged_by({"methods": [{"runs": [run]}], "problem": problem}) == ("metric", "max")
    run["final"] = {"loss": 1.0, "metric": None}
    assert judged_by({"methods": [{"runs": [run]}], "problem": problem}) == ("loss", "min")
    assert judged_by({}) == ("loss", "min")

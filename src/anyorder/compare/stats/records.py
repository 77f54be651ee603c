"""Reading what ``results.json`` holds, with fields that may be missing or hold no number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from anyorder.compare.stats.estimators import Goal
from anyorder.oracle.kinds import NOMINAL_RATES
from anyorder.oracle.ledger import Budget, BudgetError

#: What a run can be drawn against.
AXES = ("seconds", "calls", "forwards", "steps")


def listed(value: Any) -> list[Any]:
    """The list that is there, or an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def fields(value: Any) -> dict[str, Any]:
    """The object that is there, or an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def methods_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All methods of a comparison."""
    return [fields(method) for method in listed(results.get("methods"))]


def runs_of(method: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All reported runs of a method."""
    return [fields(run) for run in listed(method.get("runs"))]


def judged_by(results: Mapping[str, Any]) -> tuple[str, Goal]:
    """What methods are ranked by, and whether small or large is good.

    That is the problem's metric, which tuning went by too; the loss where no run has a metric.
    """
    goal: Goal = "max" if fields(results.get("problem")).get("goal") == "max" else "min"
    every = (run for method in methods_of(results) for run in runs_of(method))
    if any(math.isfinite(final(run, "metric")) for run in every):
        return "metric", goal
    return "loss", "min"


def number(value: Any) -> float:
    """A float of whatever JSON held in the place of a number; NaN if there was none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def succeeded(run: Mapping[str, Any]) -> bool:
    """Whether a run went to its end and its final loss is a finite number."""
    loss = number(fields(run.get("final")).get("loss"))
    return run.get("status", "done") == "done" and math.isfinite(loss)


def final(run: Mapping[str, Any], key: str, goal: Goal = "min") -> float:
    """Final ``loss`` or ``metric`` of a run; the worst possible value if it has none."""
    worst = math.inf if goal == "min" else -math.inf
    value = number(fields(run.get("final")).get(key))
    return value if succeeded(run) and math.isfinite(value) else worst


def rates_of(results: Mapping[str, Any]) -> dict[str, float]:
    """Price of each answer in forward passes: as measured if the comparison went by that."""
    rates = fields(results.get("rates"))
    measured = _numbers(rates.get("measured")) if rates.get("used") == "measured" else {}
    return {**NOMINAL_RATES, **_numbers(rates.get("nominal")), **measured}


def _numbers(table: Any) -> dict[str, float]:
    found = {str(name): number(value) for name, value in fields(table).items()}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def cost(point: Mapping[str, Any], axis: str, rates: Mapping[str, float] | None = None) -> float:
    """Cost of a run up to one evaluation.

    Args:
        point: An entry of a curve.
        axis: ``seconds``, ``steps``, ``calls`` (values, gradients, products and rankings alike)
            or ``forwards`` (what they would cost in forward passes; as recorded, else by rates).
        rates: Price of each answer, for entries that did not record ``forwards``.

    Returns:
        The cost; NaN if the entry does not hold it.
    """
    calls = fields(point.get("calls"))
    if axis == "calls":
        kinds = ("values", "grads", "products", "rankings")
        counts = [number(calls[kind]) for kind in kinds if kind in calls]
        return sum(counts) if counts else math.nan
    if axis == "forwards" and point.get("forwards") is None and calls:
        prices = NOMINAL_RATES if rates is None else rates
        return sum(number(calls.get(kind, 0)) * price for kind, price in prices.items())
    return number(point.get(axis))


def main_axis(results: Mapping[str, Any]) -> str:
    """The axis on which all methods had the same budget: ``forwards`` if it counts answers."""
    try:
        limits = Budget.parse(str(fields(results.get("plan")).get("budget"))).limits()
    except BudgetError:
        return "seconds"
    return next((axis for axis in ("seconds", "steps") if axis in limits), "forwards")

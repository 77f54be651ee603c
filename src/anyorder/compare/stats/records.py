"""Access to results for statistics: final values and costs of runs."""

from __future__ import annotations

import math
from typing import Literal

from anyorder.compare.run.records import Point, RunRecord
from anyorder.compare.stats.estimators import Goal
from anyorder.compare.store.schema import Results
from anyorder.oracle.ledger import Budget

Axis = Literal["seconds", "calls", "forwards", "steps"]
#: Quantities by which runs are ranked.
Judged = Literal["metric", "loss"]
#: Cost axes.
AXES: tuple[Axis, ...] = ("seconds", "calls", "forwards", "steps")


def number(value: float | None) -> float:
    """The number; NaN for None."""
    return math.nan if value is None else value


def judged_by(results: Results) -> tuple[Judged, Goal]:
    """The ranking quantity, and whether smaller or larger is better.

    It is the problem's metric, which tuning also uses, or the loss if no run has a metric.
    """
    every = (run for method in results.methods for run in method.runs)
    if any(math.isfinite(final(run, "metric")) for run in every):
        return "metric", results.problem.goal
    return "loss", "min"


def succeeded(run: RunRecord) -> bool:
    """Whether a run completed and has a final loss."""
    return run.status == "done" and run.final.loss is not None


def final(run: RunRecord, key: Judged, goal: Goal = "min") -> float:
    """Final loss or metric of a run; the worst possible value if it has none."""
    value = run.final.loss if key == "loss" else run.final.metric
    if succeeded(run) and value is not None:
        return value
    return math.inf if goal == "min" else -math.inf


def cost(point: Point, axis: Axis) -> float:
    """Cost of a run up to one evaluation.

    Args:
        point: An entry of a curve.
        axis: ``seconds``, ``steps``, ``calls`` (values, gradients, products and rankings,
            each counted as one) or ``forwards`` (their cost in forward passes).
    """
    if axis == "calls":
        calls = point.calls
        return float(calls.values + calls.grads + calls.products + calls.rankings)
    return float(getattr(point, axis))


def main_axis(results: Results) -> Axis:
    """The axis on which all methods had the same budget: ``forwards`` if it counts answers."""
    limits = Budget.parse(results.plan.settings.budget).limits()
    if "seconds" in limits:
        return "seconds"
    return "steps" if "steps" in limits else "forwards"

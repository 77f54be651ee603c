"""Access to results for statistics: final values and costs of runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from anyorder.compare.run.records import Point, RunRecord
from anyorder.compare.stats.estimators import Floats, Goal, iqm
from anyorder.compare.store.schema import Results
from anyorder.oracle.ledger import Budget

Axis = Literal["seconds", "calls", "forwards", "steps"]
#: What a run can be drawn against.
AXES: tuple[Axis, ...] = ("seconds", "calls", "forwards", "steps")


def number(value: float | None) -> float:
    """The number; NaN for None."""
    return math.nan if value is None else value


# --- What is judged ------------------------------------------------------------------------------


def succeeded(run: RunRecord) -> bool:
    """Whether a run went to its end and has a final metric or loss."""
    return run.status == "done" and (run.final.metric is not None or run.final.loss is not None)


@dataclass(frozen=True)
class Criterion:
    """A number of each run, and whether small or large is good.

    Attributes:
        key: Which number: the metric on test data or on validation data, or the validation loss.
        metric: The problem's metric.
        goal: Whether small or large is good.
    """

    key: Literal["test", "metric", "loss"]
    metric: str
    goal: Goal

    @property
    def name(self) -> str:
        """In words."""
        if self.key == "loss":
            return "validation loss"
        return f"{'test' if self.key == 'test' else 'validation'} {self.metric}"

    @property
    def worst(self) -> float:
        """The value of a run without a result."""
        return math.inf if self.goal == "min" else -math.inf

    def of(self, run: RunRecord) -> float:
        """The number of a run; the worst possible value if it has none."""
        if self.key == "test":
            value = (run.test or {}).get(self.metric)
        else:
            value = run.final.metric if self.key == "metric" else run.final.loss
        known = succeeded(run) and value is not None and math.isfinite(value)
        return value if known and value is not None else self.worst

    def better(self, a: float, b: float) -> bool:
        """Whether ``a`` is better than ``b``."""
        return a < b if self.goal == "min" else a > b


def criteria(results: Results) -> list[Criterion]:
    """The available criteria: test metric, validation metric, validation loss."""
    metric, goal = results.problem.metric, results.problem.goal
    every = [
        Criterion("test", metric, goal),
        Criterion("metric", metric, goal),
        Criterion("loss", metric, "min"),
    ]
    runs = [run for method in results.methods for run in method.runs]
    found = [each for each in every if any(math.isfinite(each.of(run)) for run in runs)]
    same = metric == "loss" and any(each.key == "metric" for each in found)
    return [each for each in found if not (same and each.key == "loss")] or every[-1:]


def judged_by(results: Results) -> Criterion:
    """The ranking criterion.

    The metric on test data, which no choice has used, if the problem has test data; else the
    validation metric, which tuning minimises or maximises; the loss if no run has a metric.
    """
    return criteria(results)[0]


# --- Units ---------------------------------------------------------------------------------------


def unit_of(results: Results) -> Literal["tuning", "seed"]:
    """The independent sample: a tuning if there are several, else a seed."""
    several = any(len({run.tuning for run in method.runs}) > 1 for method in results.methods)
    return "tuning" if several else "seed"


def units(runs: Sequence[RunRecord], of: Callable[[RunRecord], float]) -> Floats:
    """One number per independent unit: interquartile mean over the seeds of each tuning.

    With one tuning, the number of each seed.

    Args:
        runs: Reported runs of one method.
        of: The number of a run.
    """
    groups: dict[int, list[float]] = {}
    for run in runs:
        groups.setdefault(run.tuning, []).append(of(run))
    if len(groups) == 1:
        (alone,) = groups.values()
        return np.asarray(alone)
    return np.asarray([iqm(groups[tuning]) for tuning in sorted(groups)])


# --- What it cost --------------------------------------------------------------------------------


def added_bytes(run: RunRecord) -> int | None:
    """Peak memory of a run minus the memory before its first step; None if it was not measured.

    What is there before, such as the interpreter, libraries, data and model, is not due to the
    method, and differs between processes.
    """
    return max(0, run.peak_bytes - run.base_bytes) if run.peak_bytes else None


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

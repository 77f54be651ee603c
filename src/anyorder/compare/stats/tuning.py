"""Gain, cost and sufficiency of tuning."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from anyorder.compare.plan.space import Dimension
from anyorder.compare.stats.estimators import Floats, Goal, best_of_k, iqm
from anyorder.compare.stats.records import Axis, Criterion, judged_by, main_axis, units
from anyorder.compare.stats.targets import main_target, time_to_target
from anyorder.compare.store.schema import MethodRecord, Results, Trial

#: A best value within this fraction of an end of its range is at the edge.
EDGE = 0.02


def trials_of(method: MethodRecord) -> list[Trial]:
    """The trials of all tunings of a method."""
    return [trial for tuning in method.tunings for trial in tuning.trials]


def trial_values(method: MethodRecord, goal: Goal) -> Floats:
    """Value of each trial, with the sign changed if larger is better; inf without a result."""
    sign = 1.0 if goal == "min" else -1.0
    values = (trial.value if trial.status == "done" else None for trial in trials_of(method))
    return np.asarray([math.inf if value is None else sign * value for value in values])


def searched(method: MethodRecord) -> list[Dimension]:
    """The search space of a method: each range as wide as in any of its tunings."""
    found: dict[str, Dimension] = {}
    for each in (each for tuning in method.tunings for each in tuning.space):
        before = found.get(each.name, each)
        if each.low is not None and each.high is not None:
            assert before.low is not None and before.high is not None  # the same kind of range
            ends = min(before.low, each.low), max(before.high, each.high)
            each = replace(
                each, low=ends[0], high=ends[1], extended=before.extended or each.extended
            )
        found[each.name] = each
    return list(found.values())


# --- Whether it was enough -----------------------------------------------------------------------


def share_of_range(dimension: Dimension, value: float) -> float | None:
    """Position of a value in its range, from 0 to 1; None for choices and empty ranges."""
    low, high = dimension.low, dimension.high
    if dimension.kind == "choice" or low is None or high is None or not low < high:
        return None
    if dimension.kind == "linear":
        return (value - low) / (high - low)
    if low <= 0:
        return None
    return math.log(value / low) / math.log(high / low) if value > 0 else 0.0


def edges(method: MethodRecord) -> Iterator[tuple[Dimension, float, str]]:
    """Chosen values at an end of their range: dimension, value, side.

    An end that is a hard limit of its hyper-parameter does not count.
    """
    for tuning in method.tunings:
        chosen = tuning.trials[tuning.chosen].config if tuning.trials else {}
        for each in tuning.space:
            if not isinstance(value := chosen.get(each.name), int | float):
                continue
            share = share_of_range(each, value)
            if share is None or EDGE <= share <= 1 - EDGE:
                continue
            side, end, limit = (
                ("lower", each.low, each.floor)
                if share < EDGE
                else ("upper", each.high, each.ceiling)
            )
            if end != limit:
                yield each, float(value), side


@dataclass(frozen=True, slots=True)
class NotTunedOut:
    """Why more trials could improve a method.

    Attributes:
        method: The method.
        rise: Gain of the expected best from half of the trials to all.
        spread: Standard deviation over seeds, the threshold for ``rise``.
        edges: Names of hyper-parameters whose best value is at an end of their range.
    """

    method: str
    rise: float
    spread: float
    edges: tuple[str, ...]

    @property
    def reason(self) -> str:
        """In words."""
        reasons: list[str] = []
        if self.rise > self.spread:
            reasons.append("more trials still help")
        if self.edges:
            reasons.append(f"best {' and '.join(self.edges)} at an end of the range")
        return ", ".join(reasons)


def not_tuned_out(results: Results) -> list[NotTunedOut]:
    """Methods that more trials, or a wider range, could improve.

    The expected best of ``k`` trials, over all subsets of the trials of all tunings, is compared at
    the number of trials of one tuning and at half of it.
    """
    goal = results.problem.goal
    found: list[NotTunedOut] = []
    for method in (each for each in results.methods if each.twin_of is None):
        at_edge = tuple(dict.fromkeys(dimension.name for dimension, *_ in edges(method)))
        rise, spread = _rise(method, goal), _spread(method, goal)
        if at_edge or rise > spread:
            found.append(NotTunedOut(method.name, rise, spread, at_edge))
    return found


def _rise(method: MethodRecord, goal: Goal) -> float:
    """Gain of the second half of the trials; 0 if there are too few."""
    count = max((len(tuning.trials) for tuning in method.tunings), default=0)
    values = trial_values(method, goal)
    if count < 2 or not np.isfinite(values).any():
        return 0.0
    means = best_of_k(values).mean
    half, whole = float(means[count // 2 - 1]), float(means[count - 1])
    return half - whole if math.isfinite(whole) else 0.0


def _spread(method: MethodRecord, goal: Goal) -> float:
    """Standard deviation of the validation metric over the seeds of a tuning, all tunings pooled.

    Infinite if unknown: then a gain cannot be distinguished from noise.
    """
    key = Criterion("metric", "", goal)
    groups: dict[int, list[float]] = {}
    for run in method.runs:
        if math.isfinite(value := key.of(run)):
            groups.setdefault(run.tuning, []).append(value)
    squares = [np.square(np.asarray(group) - np.mean(group)).sum() for group in groups.values()]
    degrees = sum(len(group) - 1 for group in groups.values())
    return math.sqrt(math.fsum(squares) / degrees) if degrees > 0 else math.inf


# --- Three results -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Three:
    """Three results of a method: default, expected best of k, tuning charged.

    Attributes:
        method: The method.
        default: Judged number of the default setting, over the report seeds; NaN if not run.
        best_of: Expected best validation metric of 1, 2, 4, ... and all trials of one tuning.
        tuned: Judged number of the tuned configuration; see :func:`units`.
        search: Cost of one tuning in ``unit``, mean over tunings.
        target: Expected running time to the target, without tuning; NaN without a target.
        unit: The axis of the costs.
    """

    method: str
    default: float
    best_of: dict[int, float]
    tuned: float
    search: float
    target: float
    unit: Axis

    @property
    def charged(self) -> float:
        """Cost of one tuning and of reaching the target."""
        return self.search + self.target


def three_results(results: Results) -> list[Three]:
    """Default, expected best of k and tuning charged, for every method that has runs."""
    criterion, axis, target = judged_by(results), main_axis(results), main_target(results)
    goal = results.problem.goal
    return [
        Three(
            method.name,
            iqm([criterion.of(run) for run in method.default_runs])
            if method.default_runs
            else math.nan,
            expected_best(method, goal),
            iqm(units(method.runs, criterion.of)),
            search_cost(method, axis),
            time_to_target(method.runs, target.value, goal, axis).expected if target else math.nan,
            axis,
        )
        for method in results.methods
        if method.runs
    ]


def expected_best(method: MethodRecord, goal: Goal) -> dict[int, float]:
    """Expected best of ``k`` trials for 1, 2, 4, ... and the trials of one tuning."""
    count = max((len(tuning.trials) for tuning in method.tunings), default=0)
    if not count:
        return {}
    sign, means = (1.0 if goal == "min" else -1.0), best_of_k(trial_values(method, goal)).mean
    places = sorted({2**i for i in range(count.bit_length()) if 2**i <= count} | {count})
    return {k: sign * float(means[k - 1]) for k in places}


def search_cost(method: MethodRecord, axis: Axis) -> float:
    """Cost of one tuning, mean over the tunings; trials do not store their call counts."""
    if axis == "calls":
        return math.nan
    spent = [float(getattr(trial.cost, axis)) for trial in trials_of(method)]
    return math.fsum(spent) / max(1, len(method.tunings))

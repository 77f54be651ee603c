"""Right-censored cost to a target, and the choice of targets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from anyorder.compare.run.records import RunRecord
from anyorder.compare.stats.estimators import (
    Floats,
    Goal,
    Interval,
    expected_running_time,
    first_hit,
    median,
    median_interval,
)
from anyorder.compare.stats.records import Axis, cost, number, succeeded
from anyorder.compare.store.schema import Results

#: Shares of the budget at which the baseline sets the targets of the ladder.
RUNGS = (0.25, 0.5, 0.75, 1.0)
#: The rung that is the target if the problem sets none.
MAIN_RUNG = 0.75


@dataclass(frozen=True, slots=True)
class Target:
    """A value of the validation metric to reach, and where it comes from.

    Attributes:
        value: The value.
        source: In words.
    """

    value: float
    source: str


def ladder(results: Results) -> list[Target]:
    """Targets from easy to hard: medians of the tuned baseline at fractions of the budget.

    They depend only on the runs of the baseline, so they do not change when a method is added. A
    rung is skipped if half of these runs have no value there, or if it is not harder than the last.
    """
    baseline = next((each for each in results.methods if each.name == results.baseline), None)
    if baseline is None or not baseline.runs:
        return []
    sign = 1.0 if results.problem.goal == "min" else -1.0
    found: list[Target] = []
    for share in RUNGS:
        value = sign * median([_best_by(run, share, sign) for run in baseline.runs])
        if math.isfinite(value) and (not found or sign * value < sign * found[-1].value):
            source = f"median of {baseline.name} at {share:.0%} of the budget"
            found.append(Target(value, source))
    return found


def _best_by(run: RunRecord, share: float, sign: float) -> float:
    """Best value of a run within a fraction of its budget, signed so that smaller is better."""
    reached = [
        sign * point.metric
        for point in run.curve
        if point.fraction <= share + 1e-9 and point.metric is not None
    ]
    return min(reached, default=math.inf) if succeeded(run) else math.inf


def main_target(results: Results) -> Target | None:
    """The target of cost verdicts: the problem's, else the rung of the baseline at 75 %.

    If rungs were skipped, the last one up to 75 %; None without any.
    """
    if results.problem.target is not None:
        return Target(results.problem.target, "set by the problem")
    rungs = ladder(results)
    return rungs[min(len(rungs), RUNGS.index(MAIN_RUNG) + 1) - 1] if rungs else None


@dataclass(frozen=True, slots=True)
class Reach:
    """The runs of one method on their way to a target.

    Attributes:
        seeds: Seed of each run.
        tunings: Its tuning.
        spent: Cost up to the hit, or up to where the run ended without one.
        hit: Whether each run reached the target.
    """

    seeds: tuple[int, ...]
    tunings: tuple[int, ...]
    spent: tuple[float, ...]
    hit: tuple[bool, ...]

    @property
    def times(self) -> Floats:
        """Cost of each run; inf for a miss, which took longer than its budget."""
        return np.where(self.hit, self.spent, np.inf)

    @property
    def success(self) -> float:
        """Share of runs that reached the target."""
        return sum(self.hit) / len(self.hit) if self.hit else 0.0

    @property
    def expected(self) -> float:
        """Expected running time; inf if no run reached the target."""
        return expected_running_time(self.spent, self.hit) if self.hit else math.inf

    @property
    def median(self) -> float:
        """Median cost over units; inf if half of them missed, NaN without runs."""
        return median(self._units()) if self.hit else math.nan

    def interval(self) -> Interval | None:
        """Exact interval of the median cost; None with fewer than six units."""
        return median_interval(self._units()) if self.hit else None

    def _units(self) -> Floats:
        """Cost per tuning, the median of its seeds; with one tuning, per seed."""
        names = sorted(set(self.tunings))
        if len(names) == 1:
            return self.times
        groups = np.asarray(self.tunings)
        return np.asarray([median(self.times[groups == name]) for name in names])


def time_to_target(runs: Sequence[RunRecord], target: float, goal: Goal, axis: Axis) -> Reach:
    """When each run's metric reached the target, in the unit of ``axis``.

    A run that diverged or failed missed the target, whatever its curve shows: its weights are lost.

    Args:
        runs: Reported runs of one method.
        target: The value to reach.
        goal: Whether the target is reached from above or from below.
        axis: See :func:`~anyorder.compare.stats.records.cost`.
    """
    spent: list[float] = []
    hits: list[bool] = []
    for run in runs:
        costs = [cost(point, axis) for point in run.curve]
        when = first_hit(costs, [number(point.metric) for point in run.curve], target, goal)
        hits.append(math.isfinite(when) and succeeded(run))
        spent.append(when if hits[-1] else max(costs, default=0.0))
    seeds, tunings = (tuple(getattr(run, name) for run in runs) for name in ("seed", "tuning"))
    return Reach(seeds, tunings, tuple(spent), tuple(hits))

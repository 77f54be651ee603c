"""Results over several problems: performance profiles, geometric means, average ranks.

Every number of a method depends only on its own costs and those of a *fixed* reference set, so it
does not change when another method is added. A problem that a method never solves costs ``MISS``
budgets.

References:
    Dolan and More (2002), Mathematical Programming 91 (performance profiles);
    Fleming and Wallace (1986), Communications of the ACM 29 (geometric means of ratios);
    Gould and Scott (2016), ACM TOMS 43 (profiles change with the methods that take part);
    Bischl et al. (2016), Artificial Intelligence 237 (penalised average running time).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from anyorder.compare.stats.estimators import (
    LEVEL,
    MIN_UNITS,
    Floats,
    Interval,
    StatisticsError,
    interval,
    mean,
)
from anyorder.compare.stats.records import main_axis
from anyorder.compare.stats.targets import main_target, time_to_target
from anyorder.compare.store.schema import Results
from anyorder.extras import require

#: Cost of a problem that was never solved, in budgets.
MISS = 10.0
#: Cost ratios of the profiles.
RATIOS = (1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)


@dataclass(frozen=True)
class Costs:
    """Cost to the target of each method on each problem.

    Attributes:
        methods: Names, in the order of the rows.
        problems: Names, in the order of the columns.
        table: Shape ``(methods, problems)``: expected running time in budgets of a run.
    """

    methods: tuple[str, ...]
    problems: tuple[str, ...]
    table: Floats

    def of(self, method: str) -> Floats:
        """The costs of one method, shape ``(problems,)``."""
        return self.table[self.methods.index(method)]


@dataclass(frozen=True)
class Score:
    """One method over all problems; an interval is None with fewer than six problems.

    Intervals of means resample the problems (expanded percentiles). They show how much the choice
    of problems matters, and cover less than 95 % where few problems decide; those of shares are
    exact.

    Attributes:
        method: The method.
        ratio: Geometric mean of its cost over the least cost in the reference set; small is good.
        ratio_interval: Its interval over problems.
        rank: Average place among the reference set; 1 is best.
        rank_interval: Its interval over problems.
        profile: Share of the problems solved within each of :data:`RATIOS` times the least cost.
        profile_interval: Intervals of these shares.
        solved: Share of the problems on which the target was ever reached.
    """

    method: str
    ratio: float
    ratio_interval: Interval | None
    rank: float
    rank_interval: Interval | None
    profile: tuple[float, ...]
    profile_interval: tuple[Interval | None, ...]
    solved: float


@dataclass(frozen=True)
class Suite:
    """Scores, best geometric mean first, and pairs that the summaries order differently."""

    scores: list[Score]
    disagreements: list[tuple[str, str]]

    def __str__(self) -> str:
        """A sentence on whether the summaries agree."""
        if not self.disagreements:
            return "Geometric mean, average rank and profile order the methods alike."
        pairs = "; ".join(f"{a} and {b}" for a, b in self.disagreements)
        return f"Geometric mean, average rank and profile disagree on the order of: {pairs}."


def costs(comparisons: Sequence[Results]) -> Costs:
    """Cost to the target of every method that takes part in all comparisons.

    The target is the problem's, or the one set by the tuned baseline; the cost is in budgets, so
    that problems with different budgets can be put together.

    Raises:
        StatisticsError: There is no comparison, two are of the same problem, or no method takes
            part in all of them.
    """
    problems = [each.problem.name for each in comparisons]
    if not problems or len(set(problems)) < len(problems):
        raise StatisticsError(f"expected comparisons on different problems, got {problems}")
    shared = [
        method.name
        for method in comparisons[0].methods
        if method.twin_of is None
        and all(any(method.name == m.name for m in each.methods) for each in comparisons)
    ]
    if not shared:
        raise StatisticsError(f"no method takes part in all of {problems}")
    table = [[_cost(each, name) for each in comparisons] for name in shared]
    return Costs(tuple(shared), tuple(problems), np.asarray(table))


def _cost(results: Results, name: str) -> float:
    axis, target = main_axis(results), main_target(results)
    method = next(method for method in results.methods if method.name == name)
    if target is None or not method.runs:
        return math.inf
    reach = time_to_target(method.runs, target.value, results.problem.goal, axis)
    return reach.expected / results.budget[axis]


def judge(found: Costs, reference: Sequence[str] | None = None) -> Suite:
    """Summarise the costs on several problems.

    Args:
        found: See :func:`costs`.
        reference: Methods that the others are measured against; by default all. Name them to keep
            scores comparable when methods are added.

    Raises:
        StatisticsError: A reference method has no costs.
    """
    names = tuple(reference) if reference is not None else found.methods
    missing = [name for name in names if name not in found.methods]
    if missing or not names:
        raise StatisticsError(f"reference: expected some of {found.methods}, got {names}")
    known = np.minimum(np.stack([found.of(name) for name in names]), MISS)
    scores = [_score(found, name, dict(zip(names, known, strict=True))) for name in found.methods]
    scores.sort(key=lambda score: (score.ratio, score.rank, score.method))
    return Suite(scores, _disagreements(scores))


def _score(found: Costs, method: str, reference: Mapping[str, Floats]) -> Score:
    own = found.of(method)
    least = np.min(list(reference.values()), axis=0)
    ratio = np.minimum(own, MISS) / least
    others = [cost for name, cost in reference.items() if name != method]
    # Shape (problems,): one more than the others that are better; a tie is half a place.
    places = 1.0 + sum(
        ((cost < np.minimum(own, MISS)) + 0.5 * (cost == np.minimum(own, MISS)) for cost in others),
        start=np.zeros(len(own)),
    )
    within = [((ratio <= limit) & np.isfinite(own)).astype(float) for limit in RATIOS]
    spread = interval(np.log(ratio), mean)
    return Score(
        method,
        math.exp(mean(np.log(ratio))),
        spread and Interval(math.exp(spread.low), math.exp(spread.high)),
        mean(places),
        interval(places, mean),
        tuple(map(mean, within)),
        tuple(map(_share_interval, within)),
        float(np.isfinite(own).mean()),
    )


def _share_interval(solved: Floats) -> Interval | None:
    """Exact interval of a share (Clopper and Pearson); None with fewer than six problems."""
    if len(solved) < MIN_UNITS:
        return None
    found = require("scipy.stats").binomtest(int(solved.sum()), len(solved)).proportion_ci(LEVEL)
    return Interval(float(found.low), float(found.high))


def _disagreements(scores: Sequence[Score]) -> list[tuple[str, str]]:
    """Pairs that two summaries order differently."""
    found: list[tuple[str, str]] = []
    for a, b in combinations(scores, 2):
        signs = {
            np.sign(a.ratio - b.ratio),
            np.sign(a.rank - b.rank),
            np.sign(sum(b.profile) - sum(a.profile)),
        }
        if {-1.0, 1.0} <= signs:
            found.append((a.method, b.method))
    return found

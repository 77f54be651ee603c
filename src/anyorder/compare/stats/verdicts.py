"""Which methods of a comparison differ, and how sure one can be of it.

The arithmetic is in :mod:`anyorder.compare.stats.differences`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np

from anyorder.compare.run.records import RunRecord
from anyorder.compare.stats.differences import (
    MOST_UNITS,
    crossed_interval,
    effect_size,
    error_of_look,
    holm,
    least_units,
    measurable,
    paired_test,
    patterns_for,
    relabelling_test,
    snapped,
    units_needed,
)
from anyorder.compare.stats.estimators import LEVEL, Floats, Goal, Interval, interval, iqm
from anyorder.compare.stats.records import (
    Axis,
    Criterion,
    judged_by,
    main_axis,
    succeeded,
    unit_of,
    units,
)
from anyorder.compare.stats.targets import main_target, time_to_target
from anyorder.compare.store.schema import MethodRecord, Results

Verdict = Literal["better", "worse", "faster", "slower", "not separable", "not comparable"]
Unit = Literal["tuning", "seed"]
Key = tuple[int, int]

#: The verdict with both methods swapped.
OPPOSITE: dict[Verdict, Verdict] = {
    "better": "worse", "worse": "better", "faster": "slower", "slower": "faster",
    "not separable": "not separable", "not comparable": "not comparable",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pair:
    """Two methods; ``verdict`` says what ``a`` is compared with ``b``.

    Attributes:
        a: Name of the one.
        b: Name of the other.
        unit: The independent sample: a tuning, or a seed if each method was tuned once.
        units: Number of units of each method.
        difference: Interquartile mean of ``a - b`` over units, of ``a / b`` for costs; NaN if a
            run had no result.
        interval: Its interval, or None.
        p: P-value of the permutation test; NaN without a test.
        adjusted: ``p`` after Holm's correction for all pairs.
        verdict: The word.
        more: Number of further units for a power of 80 % at the observed difference; None if more
            than 1,000 are needed, or if there is no difference.
        why: Reason why they are not comparable, or why no verdict is possible; empty otherwise.
    """

    a: str
    b: str
    unit: Unit
    units: int
    difference: float = math.nan
    interval: Interval | None = None
    p: float = math.nan
    adjusted: float = math.nan
    verdict: Verdict = "not comparable"
    more: int | None = None
    why: str = ""

    @property
    def advice(self) -> str:
        """Number of further units for a verdict, in words; empty if there is one."""
        if self.verdict != "not separable":
            return ""
        if self.more is None:
            return f"more than {MOST_UNITS:,} {self.unit}s are needed"
        return f"needs about {self.more} more {self.unit}{'' if self.more == 1 else 's'}"

    def turned(self) -> Pair:
        """The pair with ``a`` and ``b`` swapped; its numbers do not change."""
        return replace(self, a=self.b, b=self.a, verdict=OPPOSITE[self.verdict])


# --- All pairs -----------------------------------------------------------------------------------


def compare_pairs(results: Results, level: float = LEVEL) -> list[Pair]:
    """Compare all pairs of methods in the ranking criterion: ``better`` or ``worse``.

    Returns:
        All pairs, in the order of the methods, without the twin of the baseline. A pair is ``not
        comparable`` if a method has no result, if fewer than two units are shared or if a shared
        seed did not start at the same point.
    """
    criterion = judged_by(results)
    return _judge_all(results, criterion.of, ("better", "worse"), criterion.goal, level)


def compare_costs(results: Results, axis: Axis | None = None, level: float = LEVEL) -> list[Pair]:
    """Compare all pairs of methods in their cost to the target: ``faster`` or ``slower``.

    A run that missed the target counts as slower than any that did not. Differences are ratios.

    Args:
        results: The content of ``results.json``.
        axis: Unit of the cost; by default that of the budget.
        level: One minus the error rate over all pairs and looks.

    Returns:
        As :func:`compare_pairs`; empty if there is no target.
    """
    target = main_target(results)
    if target is None:
        return []
    goal, unit = results.problem.goal, axis or main_axis(results)

    def cost(run: RunRecord) -> float:
        (time,) = time_to_target([run], target.value, goal, unit).times
        return math.log(time) if time > 0 else -math.inf

    pairs = _judge_all(results, cost, ("faster", "slower"), "min", level)
    return [
        replace(pair, difference=math.exp(pair.difference), interval=_exp(pair.interval))
        for pair in pairs
    ]


def resolution(results: Results, level: float = LEVEL) -> Pair | None:
    """The baseline against its twin, which shows the resolution of the comparison."""
    twin = next((each for each in results.methods if each.twin_of is not None), None)
    baseline = next((each for each in results.methods if twin and each.name == twin.twin_of), None)
    if twin is None or baseline is None:
        return None
    criterion = judged_by(results)
    sample = _pair(
        _Entrant.of(baseline, criterion.of), _Entrant.of(twin, criterion.of), unit_of(results)
    )
    error = error_of_look(results.plan.looks, level)
    (pair,) = _judged([sample], ("better", "worse"), criterion.goal, error)
    return pair


def _exp(ends: Interval | None) -> Interval | None:
    return ends and Interval(math.exp(ends.low), math.exp(ends.high))


# --- One pair ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entrant:
    """A method, its runs by tuning and seed, and a number of each run."""

    name: str
    runs: dict[Key, RunRecord]
    values: dict[Key, float]

    @classmethod
    def of(cls, method: MethodRecord, number: Callable[[RunRecord], float]) -> _Entrant:
        runs = {(run.tuning, run.seed): run for run in method.runs}
        return cls(method.name, runs, {key: number(run) for key, run in runs.items()})

    def failed(self) -> bool:
        return not any(map(succeeded, self.runs.values()))


@dataclass(frozen=True)
class _Sample:
    """A pair before it is judged: units of both, as the test takes them."""

    pair: Pair
    a: Floats
    b: Floats
    paired: bool

    def p(self, patterns: int) -> float:
        if self.pair.why:
            return math.nan
        if self.paired:
            return paired_test(self.a - self.b, patterns)
        return relabelling_test(self.a, self.b, patterns)


def _judge_all(
    results: Results,
    of: Callable[[RunRecord], float],
    words: tuple[Verdict, Verdict],
    goal: Goal,
    level: float,
) -> list[Pair]:
    unit = unit_of(results)
    entrants = [_Entrant.of(each, of) for each in results.methods if each.twin_of is None]
    samples = [_pair(a, b, unit) for a, b in combinations(entrants, 2)]
    return _judged(samples, words, goal, error_of_look(results.plan.looks, level))


def _pair(a: _Entrant, b: _Entrant, unit: Unit) -> _Sample:
    """The pair without its verdict, and the units to test."""
    shared = [key for key in a.runs if key in b.runs]
    keys = (shared, shared) if shared else (list(a.runs), list(b.runs))
    count = min(len({_unit(key, unit) for key in each}) for each in keys)
    pair = Pair(a.name, b.name, unit, count, why=_obstacle(a, b, shared, count, unit))
    if pair.why:
        return _Sample(pair, np.empty(0), np.empty(0), paired=False)
    x, y = (
        np.asarray([each.values[key] for key in key_of])
        for each, key_of in zip((a, b), keys, strict=True)
    )
    if shared:
        y = snapped(x, y)
    pair = _with_difference(pair, (x, y), keys)
    x, y = (
        _blocks(each, key_of, unit, np.mean)
        for each, key_of in zip(measurable(x, y), keys, strict=True)
    )
    return _Sample(pair, x, y, paired=bool(shared) and unit == "seed")


def _unit(key: Key, unit: Unit) -> int:
    tuning, seed = key
    return tuning if unit == "tuning" else seed


def _obstacle(a: _Entrant, b: _Entrant, shared: Sequence[Key], count: int, unit: Unit) -> str:
    """The reason why two methods cannot be compared, or empty."""
    for each in (a, b):
        if each.failed():
            return f"{each.name} has no result"
    if count < 2:
        return f"{count} {unit}{'' if count == 1 else 's'}; at least two are needed"
    starts = [(a.runs[key].start_hash, b.runs[key].start_hash) for key in shared]
    if any(x and y and x != y for x, y in starts):
        return "not started at the same point"
    return ""


def _with_difference(pair: Pair, values: Sequence[Floats], keys: Sequence[Sequence[Key]]) -> Pair:
    """The pair with its difference, if all units have a result."""
    blocks = [
        _blocks(each, key_of, pair.unit, iqm)[: pair.units]
        for each, key_of in zip(values, keys, strict=True)
    ]
    if not all(np.isfinite(each).all() for each in blocks):
        return pair
    apart = blocks[0] - blocks[1]
    return replace(pair, difference=iqm(apart), interval=interval(apart))


def _blocks(
    values: Floats, keys: Sequence[Key], unit: Unit, summary: Callable[[Floats], object]
) -> Floats:
    """One number per unit, in the order of the units."""
    groups: dict[int, list[float]] = {}
    for key, value in zip(keys, values, strict=True):
        groups.setdefault(_unit(key, unit), []).append(value)
    return np.asarray([summary(np.asarray(groups[name])) for name in sorted(groups)], dtype=float)


def _judged(
    samples: Sequence[_Sample], words: tuple[Verdict, Verdict], goal: Goal, error: float
) -> list[Pair]:
    """The pairs with their verdicts, corrected for all of them and for earlier looks."""
    tested = sum(not sample.pair.why for sample in samples)
    patterns = patterns_for(tested, error)
    p_values = [sample.p(patterns) for sample in samples]
    pairs: list[Pair] = []
    for sample, p, adjusted in zip(samples, p_values, holm(p_values), strict=True):
        if sample.pair.why:
            pairs.append(sample.pair)
            continue
        pair = replace(sample.pair, p=p, adjusted=adjusted, verdict="not separable")
        least = least_units(tested, error, paired=sample.paired)
        if adjusted <= error + 1e-12:
            lower = sample.a.mean() < sample.b.mean()
            pair = replace(pair, verdict=words[0] if lower == (goal == "min") else words[1])
        else:
            effect = 0.0 if p == 1 else effect_size(sample.a, sample.b, paired=sample.paired)
            total = units_needed(effect, tested, error, paired=sample.paired)
            few = f"too few {pair.unit}s, {least} are needed" if pair.units < least else ""
            pair = replace(pair, more=total and max(1, total - pair.units), why=few)
        pairs.append(pair)
    return pairs


# --- The leader ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lead:
    """The lead of one method over the others.

    Attributes:
        apart: Whether it is separated from all others, test rows included where they are known.
        rows: Whether test rows were resampled wherever it is separated.
        within_rows: Methods from which it is separated on these test rows only.
    """

    apart: bool
    rows: bool
    within_rows: tuple[str, ...]


def lead(results: Results, leader: str, pairs: Sequence[Pair], level: float = LEVEL) -> Lead:
    """Whether a method is apart from all others.

    Every pair with it must be separated in its favour, and the interval of the difference that
    also covers the choice of test rows must exclude 0.

    Args:
        results: The content of ``results.json``.
        leader: Name of the method.
        pairs: See :func:`compare_pairs`.
        level: Coverage of the interval.
    """
    own = [pair if pair.a == leader else pair.turned() for pair in pairs]
    own = [pair for pair in own if pair.a == leader]
    named = {method.name: method for method in results.methods}
    criterion, known = judged_by(results), True
    within: list[str] = []
    for pair in own:
        both = named[pair.a], named[pair.b]
        if pair.verdict != "better":
            continue
        if not _has_rows(both, criterion):
            known = False
        elif _rows_may_decide(both, criterion, level):
            within.append(pair.b)
    separated = bool(own) and all(pair.verdict == "better" for pair in own)
    return Lead(separated and not within, known, tuple(within))


def _has_rows(methods: Sequence[MethodRecord], criterion: Criterion) -> bool:
    """Whether every run with a result was judged on resampled test rows too."""
    runs = [run for each in methods for run in each.runs if math.isfinite(criterion.of(run))]
    return bool(runs) and all(run.resampled for run in runs)


def _rows_may_decide(
    methods: tuple[MethodRecord, MethodRecord], criterion: Criterion, level: float
) -> bool:
    """Whether other test rows could change the sign of the difference."""
    first, second = (units(each.runs, criterion.of) for each in methods)
    count = min(len(first), len(second))
    apart = first[:count] - second[:count]
    if not np.isfinite(apart).all():
        return False  # a run without a result is the worst on any rows
    a, b = (_over_rows(each) for each in methods)
    rows = a[: len(b)] - b[: len(a)]
    found = crossed_interval(apart, rows[np.isfinite(rows)], level)
    return found.low <= 0 <= found.high


def _over_rows(method: MethodRecord) -> Floats:
    """Mean over the runs of the judged metric, on each resampled test set."""
    drawn = [run.resampled for run in method.runs if run.resampled]
    return np.asarray(drawn, dtype=np.float64).mean(axis=0)  # None becomes NaN

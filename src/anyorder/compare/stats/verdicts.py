"""Verdicts of a comparison about its methods, with their statistical significance.

The estimators are in :mod:`anyorder.compare.stats.estimators`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Literal

import numpy as np

from anyorder.compare.run.records import Point, RunRecord
from anyorder.compare.stats.estimators import (
    LEVEL,
    MIN_SEEDS,
    Floats,
    Goal,
    Interval,
    StatisticsError,
    expected_running_time,
    first_hit,
    holm,
    interval,
    iqm,
    mean,
    median,
    seeds_needed,
    sign_flip_test,
    signed_sizes,
)
from anyorder.compare.stats.records import (
    AXES,
    Axis,
    Judged,
    cost,
    final,
    judged_by,
    main_axis,
    number,
    succeeded,
)
from anyorder.compare.store.schema import MethodRecord, Results

Verdict = Literal["better", "worse", "not separable", "not comparable"]


# --- Time to a target -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reach:
    """Costs of the runs of one method to a target, right-censored.

    Attributes:
        seeds: Seed of each run.
        spent: Cost up to the hit, or of the whole run without a hit.
        hit: Whether each run reached the target.
    """

    seeds: tuple[int, ...]
    spent: tuple[float, ...]
    hit: tuple[bool, ...]

    @property
    def success(self) -> float:
        """Fraction of runs that reached the target."""
        return sum(self.hit) / len(self.hit) if self.hit else 0.0

    @property
    def expected(self) -> float:
        """Expected running time; inf if no run reached the target."""
        return expected_running_time(self.spent, self.hit) if self.hit else math.inf

    def interval(self) -> Interval | None:
        """Bootstrap interval of the expected running time; None with fewer than three runs."""
        if len(self.hit) < MIN_SEEDS:
            return None
        return interval(np.column_stack([self.spent, self.hit]), expected_running_time)


def time_to_target(runs: Iterable[RunRecord], target: float, goal: Goal, axis: Axis) -> Reach:
    """Cost at which each run's metric reached the target, in the unit of ``axis``.

    A run that diverged or failed missed the target, even if its curve reached it before.

    Args:
        runs: Reported runs of one method.
        target: The value to reach.
        goal: Whether it is reached from above (``min``) or from below (``max``).
        axis: See :func:`~anyorder.compare.stats.records.cost`.
    """
    seeds: list[int] = []
    spent: list[float] = []
    hits: list[bool] = []
    for run in runs:
        costs = [cost(point, axis) for point in run.curve]
        when = first_hit(costs, [number(point.metric) for point in run.curve], target, goal)
        seeds.append(run.seed)
        hits.append(math.isfinite(when) and succeeded(run))
        spent.append(when if hits[-1] else max(costs, default=0.0))
    return Reach(tuple(seeds), tuple(spent), tuple(hits))


# --- Differences ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pair:
    """Two methods on the same seeds; ``verdict`` is that of ``a`` against ``b``.

    Attributes:
        a: Name of the first method.
        b: Name of the second method.
        seeds: Number of shared seeds.
        difference: Mean of ``a - b`` over the seeds; NaN if a run had no result.
        interval: Its interval, or None.
        p: p-value of the paired permutation test; NaN if unknown.
        adjusted: ``p`` after Holm's correction for all pairs.
        verdict: The verdict.
        why: Reason why they are not comparable, or why no verdict is possible; empty otherwise.
    """

    a: str
    b: str
    seeds: int
    difference: float = math.nan
    interval: Interval | None = None
    p: float = math.nan
    adjusted: float = math.nan
    verdict: Verdict = "not comparable"
    why: str = ""


def compare_pairs(results: Results, level: float = LEVEL) -> list[Pair]:
    """Compare all pairs of methods on their shared seeds, in the ranking quantity.

    Returns:
        All pairs, in the order of the methods. A pair is ``not comparable`` if a method has no
        result, if fewer than two seeds are shared or if a shared seed did not start at the
        same point.
    """
    key, goal = judged_by(results)
    pairs = [_pair(a, b, key, goal) for a, b in combinations(results.methods, 2)]
    adjusted = holm([pair.p for pair, _ in pairs])
    tested = sum(not pair.why for pair, _ in pairs)
    needed = seeds_needed(tested, level)
    return [
        pair if pair.why else _judged(pair, differences, after, level, goal, needed)
        for (pair, differences), after in zip(pairs, adjusted, strict=True)
    ]


def _pair(a: MethodRecord, b: MethodRecord, key: Judged, goal: Goal) -> tuple[Pair, Floats]:
    """The pair without its verdict, and the difference on each shared seed."""
    names = a.name, b.name
    runs_a, runs_b = ({run.seed: run for run in each.runs} for each in (a, b))
    shared = [seed for seed in runs_a if seed in runs_b]
    starts = [(runs_a[seed].start_hash, runs_b[seed].start_hash) for seed in shared]
    why = ""
    if not all(any(map(succeeded, runs.values())) for runs in (runs_a, runs_b)):
        why = f"{names[int(any(map(succeeded, runs_a.values())))]} has no result"
    elif len(shared) < 2:
        why = f"{len(shared)} shared seed{'' if len(shared) == 1 else 's'}; at least two are needed"
    elif any(x and y and x != y for x, y in starts):
        why = "not started at the same point"
    if why:
        return Pair(*names, len(shared), why=why), np.empty(0)
    ends = [(final(runs_a[seed], key, goal), final(runs_b[seed], key, goal)) for seed in shared]
    # Two runs without a result are equally bad.
    differences = np.asarray([0.0 if x == y else x - y for x, y in ends])
    return Pair(*names, len(shared), p=sign_flip_test(differences)), differences


def _judged(
    pair: Pair, differences: Floats, adjusted: float, level: float, goal: Goal, needed: int
) -> Pair:
    verdict: Verdict = "not separable"
    if adjusted <= 1 - level + 1e-12:
        lower = math.fsum(signed_sizes(differences)) < 0
        verdict = "better" if lower == (goal == "min") else "worse"
    known = bool(np.isfinite(differences).all())
    return replace(
        pair,
        difference=math.fsum(differences) / len(differences) if known else math.nan,
        interval=interval(differences, mean) if known else None,
        adjusted=adjusted,
        verdict=verdict,
        why=f"too few seeds, {needed} are needed" if pair.seeds < needed else "",
    )


# --- Leaderboard ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One method in the leaderboard.

    Attributes:
        name: The method.
        final_loss: Interquartile mean of the final validation loss over report seeds. It is inf
            if the middle half contains a run without a result.
        low: Lower end of its interval, or None without an interval.
        high: Upper end of its interval.
        metric: Interquartile mean of the final metric.
        metric_low: Lower end of its interval.
        metric_high: Upper end of its interval.
        success: Fraction of runs that reached the target; None without a target.
        target_cost: Expected running time to the target in ``unit``; inf if never reached.
        calls: Median over runs of each count of the ledger.
        seconds: Median seconds of a run, evaluations not counted.
        peak_bytes: Largest over runs; 0 if it could not be measured.
        state_bytes: Largest over runs.
        note: Remarks: failures, divergence, too few seeds.
        runs: Number of report runs.
        unit: The axis of ``target_cost``.
        oracle_share: Fraction of the time spent in the problem rather than in the method.
        failed: Whether there is no result at all.
    """

    name: str
    final_loss: float = math.inf
    low: float | None = None
    high: float | None = None
    metric: float = math.nan
    metric_low: float | None = None
    metric_high: float | None = None
    success: float | None = None
    target_cost: float | None = None
    calls: dict[str, float] = field(default_factory=dict[str, float])
    seconds: float = math.nan
    peak_bytes: int = 0
    state_bytes: int = 0
    note: str = ""
    runs: int = 0
    unit: Axis = "seconds"
    oracle_share: float | None = None
    failed: bool = False


def summarise(results: Results, axis: Axis | None = None) -> list[Row]:
    """The leaderboard: sorted by metric, then loss; methods without result are last.

    Args:
        results: The content of ``results.json``.
        axis: Unit of the time to the target; by default that of the budget.
    """
    axis = main_axis(results) if axis is None else axis
    if axis not in AXES:
        raise StatisticsError(f"axis: expected one of {list(AXES)}, got {axis!r}")
    rows = [_row(method, results, axis) for method in results.methods]
    key, goal = judged_by(results)

    def place(row: Row) -> tuple[bool, float, float, str]:
        judged = row.metric if key == "metric" and not math.isnan(row.metric) else row.final_loss
        return row.failed, judged if goal == "min" else -judged, row.final_loss, row.name

    return sorted(rows, key=place)


def _row(method: MethodRecord, results: Results, axis: Axis) -> Row:
    goal, target, runs = results.problem.goal, results.problem.target, method.runs
    if not runs:
        note = method.failed or "no run was recorded"
        return Row(method.name, note=note, unit=axis, failed=True)
    losses = [final(run, "loss") for run in runs]
    metrics = [final(run, "metric", goal) for run in runs]
    has_metric = any(map(math.isfinite, metrics))
    spread, metric_spread = interval(losses), interval(metrics) if has_metric else None
    reach = None if target is None else time_to_target(runs, target, goal, axis)
    ends = [run.curve[-1] for run in runs if run.curve]
    return Row(
        method.name,
        iqm(losses),
        *_ends(spread),
        iqm(metrics) if has_metric else math.nan,
        *_ends(metric_spread),
        success=None if reach is None else reach.success,
        target_cost=None if reach is None else reach.expected,
        calls=_median_calls(ends),
        seconds=median([end.seconds for end in ends]) if ends else math.nan,
        peak_bytes=max(run.peak_bytes for run in runs),
        state_bytes=max(run.state_bytes for run in runs),
        note=_note(method),
        runs=len(runs),
        unit=axis,
        oracle_share=_oracle_share(ends),
        failed=not any(map(succeeded, runs)),
    )


def _ends(spread: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if spread is None else (spread.low, spread.high)


def _median_calls(ends: Sequence[Point]) -> dict[str, float]:
    ledgers = [asdict(end.calls) for end in ends]
    return (
        {kind: median([ledger[kind] for ledger in ledgers]) for kind in ledgers[0]} if ends else {}
    )


def _oracle_share(ends: Sequence[Point]) -> float | None:
    oracle = sum(end.oracle_seconds for end in ends)
    total = oracle + sum(end.optimizer_seconds for end in ends)
    return oracle / total if total > 0 else None


def _note(method: MethodRecord) -> str:
    """Failures with their first reason, divergence, and why there is no interval."""
    runs = method.runs
    parts = [method.failed] if method.failed else []
    lost = [run for run in runs if not succeeded(run)]
    crashed = [run for run in lost if run.status == "failed"]
    if crashed:
        parts.append(f"{len(crashed)} of {len(runs)} runs failed: {crashed[0].error}")
    if len(lost) > len(crashed):
        parts.append(f"{len(lost) - len(crashed)} of {len(runs)} runs diverged")
    if len(runs) < MIN_SEEDS:
        count = "1 seed" if len(runs) == 1 else f"{len(runs)} seeds"
        parts.append(f"{count}: no interval (at least three are needed)")
    return "; ".join(parts)

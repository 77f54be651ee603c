"""The leaderboard: one row per method, best first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from anyorder.compare.run.records import Point
from anyorder.compare.stats.differences import ROUNDING
from anyorder.compare.stats.estimators import (
    MIN_UNITS,
    Interval,
    StatisticsError,
    interval,
    iqm,
    median,
)
from anyorder.compare.stats.records import (
    AXES,
    Axis,
    Criterion,
    added_bytes,
    judged_by,
    main_axis,
    succeeded,
    unit_of,
    units,
)
from anyorder.compare.stats.targets import Target, main_target, time_to_target
from anyorder.compare.store.schema import MethodRecord, Results


@dataclass(frozen=True, slots=True)
class Row:
    """One method in the leaderboard.

    A mean is the interquartile mean over units: over tunings, each with the interquartile mean of
    its seeds, or over seeds if each method was tuned once. It is infinite if the middle half
    contains a run without a result.

    Attributes:
        name: The method.
        judged: Mean of the ranking criterion, see
            :func:`~anyorder.compare.stats.records.judged_by`.
        judged_low: Lower end of its interval, or None without an interval.
        judged_high: Upper end of its interval.
        final_loss: Mean of the final validation loss.
        low: Lower end of its interval.
        high: Upper end of its interval.
        metric: Mean of the final validation metric; NaN if there is none.
        metric_low: Lower end of its interval.
        metric_high: Upper end of its interval.
        success: Fraction of runs that reached the target; None without a target.
        target_cost: Expected running time to the target in ``unit``; inf if never reached.
        calls: Median over runs of each count of the ledger.
        seconds: Median seconds of a run, evaluations not counted.
        run_bytes: Memory added by a run, the largest over runs, see
            :func:`~anyorder.compare.stats.records.added_bytes`; None if it was not measured.
        state_bytes: Largest over runs.
        note: Remarks: failures, divergence, too few units.
        runs: Number of reported runs.
        tunings: Number of tunings that they belong to.
        unit: The axis of ``target_cost``.
        oracle_share: Fraction of the time spent in the problem rather than in the method.
        failed: Whether there is no result at all.
        twin: Whether this is the twin of the baseline.
        pareto: Whether no other method is at least as good in ``judged``, cost and memory and
            better in one of them. The cost is ``target_cost``, or ``seconds`` without a target.
    """

    name: str
    judged: float = math.nan
    judged_low: float | None = None
    judged_high: float | None = None
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
    run_bytes: int | None = None
    state_bytes: int = 0
    note: str = ""
    runs: int = 0
    tunings: int = 0
    unit: Axis = "seconds"
    oracle_share: float | None = None
    failed: bool = False
    twin: bool = False
    pareto: bool = False


def summarise(results: Results, axis: Axis | None = None) -> list[Row]:
    """The leaderboard: sorted by the ranking criterion; the twin and failures are last.

    Args:
        results: The content of ``results.json``.
        axis: Unit of the cost to the target; by default that of the budget.
    """
    axis = main_axis(results) if axis is None else axis
    if axis not in AXES:
        raise StatisticsError(f"axis: expected one of {list(AXES)}, got {axis!r}")
    target, criterion = main_target(results), judged_by(results)
    sign = 1.0 if criterion.goal == "min" else -1.0
    rows = [_row(method, results, axis, target) for method in results.methods]

    def place(row: Row) -> tuple[bool, bool, float, float, str]:
        return row.failed, row.twin, sign * row.judged, row.final_loss, row.name

    judged = {row.name: _coordinates(row, sign) for row in rows if not (row.failed or row.twin)}
    ranked = [
        replace(
            row, pareto=not any(_dominates(other, judged[row.name]) for other in judged.values())
        )
        if row.name in judged
        else row
        for row in rows
    ]
    return sorted(ranked, key=place)


def _coordinates(row: Row, sign: float) -> tuple[float, float, float]:
    """Judged number, cost and memory, all of them better if smaller."""
    cost = row.seconds if row.target_cost is None else row.target_cost
    return sign * row.judged, cost, float(row.run_bytes or 0)


def _dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether ``a`` is nowhere worse than ``b`` and somewhere better; rounding is neither."""

    def less(x: float, y: float) -> bool:
        return x < y and not abs(x - y) <= ROUNDING * max(abs(x), abs(y))

    pairs = list(zip(a, b, strict=True))
    return any(less(x, y) for x, y in pairs) and not any(less(y, x) for x, y in pairs)


def _row(method: MethodRecord, results: Results, axis: Axis, target: Target | None) -> Row:
    goal, runs, twin = results.problem.goal, method.runs, method.twin_of is not None
    if not runs:
        note = method.failed or "no run was recorded"
        return Row(method.name, math.inf, note=note, unit=axis, failed=True, twin=twin)
    validation = Criterion("metric", results.problem.metric, goal)
    loss = Criterion("loss", results.problem.metric, "min")
    has_metric = any(math.isfinite(validation.of(run)) for run in runs)
    reach = None if target is None else time_to_target(runs, target.value, goal, axis)
    ends = [run.curve[-1] for run in runs if run.curve]
    return Row(
        method.name,
        *_mean(method, judged_by(results)),
        *_mean(method, loss),
        *(_mean(method, validation) if has_metric else (math.nan, None, None)),
        success=None if reach is None else reach.success,
        target_cost=None if reach is None else reach.expected,
        calls=_median_calls(ends),
        seconds=median([end.seconds for end in ends]) if ends else math.nan,
        run_bytes=max(
            (found for run in runs if (found := added_bytes(run)) is not None), default=None
        ),
        state_bytes=max(run.state_bytes for run in runs),
        note=_note(method, results),
        runs=len(runs),
        tunings=len({run.tuning for run in runs}),
        unit=axis,
        oracle_share=_oracle_share(ends),
        failed=not any(map(succeeded, runs)),
        twin=twin,
    )


def _mean(method: MethodRecord, criterion: Criterion) -> tuple[float, float | None, float | None]:
    """Interquartile mean over units, and the ends of its interval."""
    values = units(method.runs, criterion.of)
    return (iqm(values), *ends_of(interval(values)))


def ends_of(spread: Interval | None) -> tuple[float | None, float | None]:
    """Both ends; None for both where there is no interval."""
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


def _note(method: MethodRecord, results: Results) -> str:
    """Failures with their first reason, divergence, and why there is no interval."""
    runs, criterion = method.runs, judged_by(results)
    parts = [method.failed] if method.failed else []
    failed = [run for run in runs if run.status == "failed"]
    timeouts = [run for run in failed if run.stop_reason == "timeout"]
    large = [run for run in failed if run.stop_reason == "memory"]
    crashed = [run for run in failed if run.stop_reason not in ("timeout", "memory")]
    diverged = sum(run.status == "diverged" for run in runs)
    lost = sum(not math.isfinite(criterion.of(run)) for run in runs)
    if crashed:
        parts.append(f"{len(crashed)} of {len(runs)} runs failed: {crashed[0].error}")
    if timeouts:
        parts.append(f"{len(timeouts)} of {len(runs)} runs timed out")
    if large:
        parts.append(
            f"{len(large)} of {len(runs)} runs exceeded the memory limit: {large[0].error}"
        )
    if diverged:
        parts.append(f"{diverged} of {len(runs)} runs diverged")
    if lost > len(failed) + diverged:
        parts.append(
            f"{lost - len(failed) - diverged} of {len(runs)} runs have no finite {criterion.name}"
        )
    unit, count = unit_of(results), len(units(runs, criterion.of))
    if count < MIN_UNITS:
        many = f"{count} {unit}{'' if count == 1 else 's'}"
        parts.append(f"{many}: no interval (at least {MIN_UNITS} are needed)")
    return "; ".join(parts)

"""Estimators for few runs: location, intervals, censored times, best of k, tests.

Pure functions of arrays. A run that diverged, crashed or never reached the target counts as the
worst possible value, infinity; it is never excluded from an average. Random numbers are fixed: the
same runs give the same intervals, in any order. SciPy is used where possible; it has no fractional
interquartile mean, expanded percentiles, censored times or Holm correction.

References:
    Agarwal et al. (2021), arXiv 2108.13264 (interquartile mean, bootstrap over runs);
    Hesterberg (2015), arXiv 1411.5279 (intervals for few runs);
    Auger and Hansen (2005), CEC (expected running time);
    Tang et al. (2020), arXiv 2004.13705 (best of k without bias); Holm (1979).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anyorder.errors import AnyOrderError
from anyorder.extras import require

Floats = NDArray[np.float64]
Goal = Literal["min", "max"]

LEVEL = 0.95
RESAMPLES = 10_000
MIN_SEEDS = 3
#: Sign patterns are enumerated up to this many pairs, and sampled beyond.
EXACT_PAIRS = 14


class StatisticsError(AnyOrderError, ValueError):
    """Invalid input of a statistic."""


# --- Location and intervals -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval; an end is infinite if too many runs have no result."""

    low: float
    high: float


def iqm(values: ArrayLike) -> Any:
    """Interquartile mean over the last axis: the mean of the middle half of the values.

    Each of ``n`` sorted values represents ``1/n`` of the distribution; values that straddle a
    quartile count with the fraction inside, so the result does not jump with ``n``: the weights of
    three values are 1/6, 2/3, 1/6, of four values 0, 1/2, 1/2, 0.

    Args:
        values: Shape ``(..., n)`` with ``n >= 1``. Infinite ones are allowed, NaN is not.

    Returns:
        A float, or an array of shape ``(...)``.
    """
    ordered = np.sort(_checked(values), axis=-1)
    n = ordered.shape[-1]
    edges: Floats = np.arange(n + 1, dtype=np.float64) / n
    weights = 2 * np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0, None)
    inside = weights > 1e-12  # an infinite value with weight zero must not give NaN
    middle = np.asarray(ordered[..., inside] @ weights[inside])
    return float(middle) if middle.ndim == 0 else middle


def mean(values: ArrayLike) -> Any:
    """Mean over the last axis; see :func:`iqm` for shapes."""
    middle = np.asarray(np.mean(_checked(values), axis=-1))
    return float(middle) if middle.ndim == 0 else middle


def median(values: ArrayLike) -> Any:
    """Median over the last axis; see :func:`iqm` for shapes."""
    middle = np.asarray(np.median(_checked(values), axis=-1))
    return float(middle) if middle.ndim == 0 else middle


def interval(
    values: ArrayLike, statistic: Callable[..., Any] = iqm, level: float = LEVEL
) -> Interval | None:
    """Bootstrap interval of a statistic of independent runs.

    Runs are resampled with replacement, and the percentiles ``(1 - level) / 2`` are widened by the
    ratio of Student's t to the normal distribution (Hesterberg's expanded percentiles). Plain
    percentiles are too narrow for few runs.

    Args:
        values: Shape ``(n,)``, one number per run, or ``(n, k)``, ``k`` numbers per run.
        statistic: Maps ``k`` arrays of shape ``(..., n)`` to one of shape ``(...)``.
        level: Coverage.

    Returns:
        The interval, or None with fewer than three runs: two numbers are not enough for a spread.
    """
    table = _checked(values)
    if table.shape[0] < MIN_SEEDS:
        return None
    # Sort first, so that the result does not depend on the order of the seeds.
    table = np.sort(table)[:, None] if table.ndim == 1 else table[np.lexsort(table.T[::-1])]
    return _interval(tuple(map(tuple, table.T.tolist())), statistic, level)


@lru_cache(maxsize=1024)  # a report uses the same intervals many times
def _interval(
    columns: tuple[tuple[float, ...], ...], statistic: Callable[..., Any], level: float
) -> Interval:
    n = len(columns[0])
    laws = require("scipy.stats")
    tail = laws.norm.cdf(math.sqrt(n / (n - 1)) * laws.t.ppf((1 - level) / 2, n - 1))
    with np.errstate(invalid="ignore"):  # runs without result: SciPy computes inf - inf
        drawn = laws.bootstrap(
            columns,
            lambda *resampled, axis: statistic(*resampled),
            paired=True,
            n_resamples=RESAMPLES,
            method="percentile",
            rng=np.random.default_rng([20210830, n]),
        ).bootstrap_distribution
    low = np.quantile(drawn, tail, method="lower")
    high = np.quantile(drawn, 1 - tail, method="higher")
    return Interval(float(low), float(high))


def _checked(values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise StatisticsError(f"expected at least one number, got {values!r}")
    if np.isnan(array).any():
        raise StatisticsError("a value is NaN; write inf for a run without a result")
    return array


# --- Time to a target -----------------------------------------------------------------------------


def first_hit(
    costs: Sequence[float], values: Sequence[float], target: float, goal: Goal = "min"
) -> float:
    """Cost at which a curve first reaches the target, by linear interpolation; inf if never.

    Args:
        costs: Cost at each evaluation, non-decreasing.
        values: Metric at each evaluation. There is no interpolation from a non-finite value: a
            target reached right after it counts from the later evaluation.
        target: The value to reach.
        goal: Whether the target is reached from above (``min``) or from below (``max``).
    """
    sign = 1.0 if goal == "min" else -1.0
    before: tuple[float, float] | None = None
    for cost, value in zip(costs, values, strict=True):
        if math.isfinite(value):
            if sign * value <= sign * target:
                if before is None:
                    return cost
                share = (target - before[1]) / (value - before[1])
                return before[0] + share * (cost - before[0])
            before = (cost, value)
        else:
            before = None
    return math.inf


def expected_running_time(spent: ArrayLike, hit: ArrayLike) -> Any:
    """Total cost of all runs divided by the number of hits: the expected cost with restarts.

    Args:
        spent: Shape ``(..., n)``: cost up to the hit, or of the whole run if it missed.
        hit: Shape ``(..., n)`` of zeros and ones.

    Returns:
        A float, or an array of shape ``(...)``; inf without a hit.
    """
    total, hits = np.sum(spent, axis=-1, dtype=float), np.sum(hit, axis=-1, dtype=float)
    ratio = np.divide(total, hits, out=np.full_like(total, np.inf), where=hits > 0)
    return float(ratio) if ratio.ndim == 0 else ratio


# --- Curves ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Curve:
    """One run: finite values ``y`` at costs ``x``, and whether it ended without a result."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Band:
    """Middle and spread of several curves; arrays of shape ``(points,)``."""

    x: Floats
    mid: Floats
    low: Floats
    high: Floats


def band(curves: Sequence[Curve], goal: Goal = "min", points: int = 200) -> Band:
    """Pointwise median of curves, and their quartiles (their range, if there are fewer than five).

    Curves are interpolated linearly between evaluations and cut at the end of the shortest complete
    one. A run without a result counts as the worst possible value after its end, so that the line
    does not improve when bad runs drop out; it ends where more than half of them have no result.

    Args:
        curves: One per run.
        goal: Whether smaller or larger values are better.
        points: Maximum number of points.
    """
    worst = np.inf if goal == "min" else -np.inf
    drawn = [curve for curve in curves if curve.x]
    whole = [curve for curve in drawn if not curve.lost] or drawn
    nothing = np.empty(0)
    if not drawn:
        return Band(nothing, nothing, nothing, nothing)
    start, end = max(c.x[0] for c in drawn), min(c.x[-1] for c in whole)
    inside = {x for curve in drawn for x in curve.x if start <= x <= end}
    x = np.asarray(sorted(inside | ({start, end} if start <= end else set())))
    if len(x) > points:
        x = x[np.unique(np.linspace(0, len(x) - 1, points).round().astype(int))]
    table = np.full((len(curves), len(x)), worst)
    for row, curve in zip(table, curves, strict=True):
        if curve.x:
            np.copyto(row, np.interp(x, np.maximum.accumulate(curve.x), curve.y))
            row[x > curve.x[-1]] = worst
    quarter, above = (0.25, 0.75) if len(curves) >= 5 else (0.0, 1.0)
    mid = np.median(table, axis=0) if len(curves) else nothing
    low = np.quantile(table, quarter, axis=0, method="lower")
    high = np.quantile(table, above, axis=0, method="higher")
    shown = np.isfinite(mid)
    return Band(x[shown], mid[shown], low[shown], high[shown])


# --- Tuning ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BestOfK:
    """Best of ``k`` trials for ``k = 1 .. n``; arrays of shape ``(n,)``.

    Attributes:
        k: Number of trials.
        mean: Expected best.
        low: Lower quartile of the best.
        high: Upper quartile of the best.
    """

    k: NDArray[np.int64]
    mean: Floats
    low: Floats
    high: Floats


def best_of_k(values: ArrayLike) -> BestOfK:
    """Expected best of ``k`` trials, over all subsets of the trials.

    The ``i``-th smallest of ``n`` values is the smallest of ``C(n - i, k - 1)`` of the ``C(n, k)``
    subsets of size ``k``. This is exact and unbiased; sampling subsets with replacement is neither.

    Args:
        values: Shape ``(n,)``, smaller is better; inf for a trial that diverged.

    Returns:
        The curves. The mean is inf as long as a subset can consist only of diverged trials.
    """
    ordered = np.sort(_checked(values))
    n = len(ordered)
    place, k = np.arange(1, n + 1), np.arange(1, n + 1)[:, None]
    # The best is at most the i-th smallest unless the subset contains none of the first i.
    below = 1.0 - require("scipy.stats").hypergeom.pmf(0, n, place, k)
    chance = np.where(place <= n - k + 1, np.diff(below, prepend=0.0), 0.0)
    worth = np.where(chance > 0, ordered, 0.0)  # probability 0 times inf must not give NaN
    low, high = (ordered[np.argmax(below >= q - 1e-12, axis=1)] for q in (0.25, 0.75))
    return BestOfK(place, (chance * worth).sum(axis=1), low, high)


# --- Differences ----------------------------------------------------------------------------------


def signed_sizes(differences: ArrayLike) -> Floats:
    """The differences, or their signed ranks if one of them is infinite.

    A difference is infinite if one of two runs has no result. Such a run is the worst of all, but
    by an unknown amount.
    """
    values = _checked(differences)
    if np.isfinite(values).all():
        return values
    return np.sign(values) * require("scipy.stats").rankdata(np.abs(values))


def sign_flip_test(differences: ArrayLike) -> float:
    """Two-sided paired permutation test, which flips the signs of the differences.

    All sign patterns are enumerated for up to 14 pairs; beyond that, 16,384 fixed ones are sampled.

    Args:
        differences: Shape ``(n,)``; an infinite one turns all into signed ranks; NaN is an error.

    Returns:
        The p-value. Its smallest possible value is ``2 ** (1 - n)``.
    """
    values = np.sort(signed_sizes(differences))  # independent of the order of the seeds
    return _sign_flips(tuple(values.tolist()))


@lru_cache(maxsize=1024)
def _sign_flips(values: tuple[float, ...]) -> float:
    found = require("scipy.stats").permutation_test(
        (values,),
        np.mean,
        permutation_type="samples",
        n_resamples=2**EXACT_PAIRS,
        batch=2**12,
        rng=np.random.default_rng([19790101, len(values)]),
    )
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values in the same order; NaN means no test and is not counted."""
    tested = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    running = 0.0
    for rank, (p, i) in enumerate(tested):
        running = max(running, min(1.0, (len(tested) - rank) * p))
        adjusted[i] = running
    return adjusted


def seeds_needed(pairs: int, level: float = LEVEL) -> int:
    """Minimum number of paired seeds for a significant test among ``pairs`` pairs."""
    return max(MIN_SEEDS, 1 + math.ceil(math.log2(max(pairs, 1) / (1 - level)) - 1e-9))

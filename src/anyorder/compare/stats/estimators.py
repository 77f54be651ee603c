"""Estimators for few units: location, intervals, censored costs, curves, best of k.

Pure functions of arrays. A run that diverged, crashed or never reached the target counts as the
worst possible value, infinity; it is never excluded from an average. Random numbers are fixed: the
same runs give the same intervals, in any order. SciPy is used where possible; it has no fractional
interquartile mean, expanded percentiles or expected running time.

References:
    Agarwal et al. (2021), arXiv 2108.13264 (interquartile mean, bootstrap over runs);
    Hesterberg (2015), arXiv 1411.5279 (intervals for few runs);
    Auger and Hansen (2005), CEC (expected running time);
    Tang et al. (2020), arXiv 2004.13705 (best of k without bias);
    Conover (1999), Practical Nonparametric Statistics (interval of a median).
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
#: Minimum number of units for a 95 % interval: the range of five covers a median with 93.75 %.
MIN_UNITS = 6


class StatisticsError(AnyOrderError, ValueError):
    """Invalid input of a statistic."""


# --- Location and intervals ----------------------------------------------------------------------


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
    ordered = np.sort(checked(values), axis=-1)
    n = ordered.shape[-1]
    edges: Floats = np.arange(n + 1, dtype=np.float64) / n
    weights = 2 * np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0, None)
    inside = weights > 1e-12  # an infinite value with weight zero must not give NaN
    middle = np.asarray(ordered[..., inside] @ weights[inside])
    return float(middle) if middle.ndim == 0 else middle


def mean(values: ArrayLike) -> Any:
    """Mean over the last axis; see :func:`iqm` for shapes."""
    middle = np.asarray(np.mean(checked(values), axis=-1))
    return float(middle) if middle.ndim == 0 else middle


def median(values: ArrayLike) -> Any:
    """Median over the last axis; see :func:`iqm` for shapes."""
    middle = np.asarray(np.median(checked(values), axis=-1))
    return float(middle) if middle.ndim == 0 else middle


def interval(
    values: ArrayLike, statistic: Callable[..., Any] = iqm, level: float = LEVEL
) -> Interval | None:
    """Bootstrap interval of a statistic of independent units.

    Units are resampled with replacement, and the percentiles ``(1 - level) / 2`` are widened by the
    ratio of Student's t to the normal distribution (Hesterberg's expanded percentiles). Plain
    percentiles are too narrow for few units.

    Args:
        values: Shape ``(n,)``, one number per unit.
        statistic: Maps an array of shape ``(..., n)`` to one of shape ``(...)``.
        level: Wanted coverage.

    Returns:
        The interval, or None with fewer than six units, where its coverage would be too low.
    """
    table = checked(values)
    if len(table) < MIN_UNITS:
        return None
    # Sort first, so that the result does not depend on the order of the units.
    return _interval(tuple(np.sort(table).tolist()), statistic, level)


@lru_cache(maxsize=1024)  # one report asks for the same intervals many times
def _interval(values: tuple[float, ...], statistic: Callable[..., Any], level: float) -> Interval:
    n = len(values)
    laws = require("scipy.stats")
    tail = laws.norm.cdf(math.sqrt(n / (n - 1)) * laws.t.ppf((1 - level) / 2, n - 1))
    with np.errstate(invalid="ignore"):  # runs without result: SciPy computes inf - inf
        drawn = laws.bootstrap(
            (values,),
            lambda resampled, axis: statistic(resampled),
            n_resamples=RESAMPLES,
            method="percentile",
            rng=np.random.default_rng([20210830, n]),
        ).bootstrap_distribution
    low = np.quantile(drawn, tail, method="lower")
    high = np.quantile(drawn, 1 - tail, method="higher")
    return Interval(float(low), float(high))


def median_interval(values: ArrayLike, level: float = LEVEL) -> Interval | None:
    """Exact interval of a median between two of the sorted values, for any distribution.

    Values may be infinite: a target that was missed costs more than any other.

    Args:
        values: Shape ``(n,)``, one number per unit.
        level: Minimum coverage.

    Returns:
        The interval, or None with fewer than six units, which cannot cover 95 %.
    """
    found = checked(values)
    if len(found) < MIN_UNITS:
        return None
    ends = require("scipy.stats").quantile_test(found, p=0.5).confidence_interval(level)
    return Interval(float(ends.low), float(ends.high))


def checked(values: ArrayLike) -> Floats:
    """The numbers as an array; an empty one and NaN are errors."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise StatisticsError(f"expected at least one number, got {values!r}")
    if np.isnan(array).any():
        raise StatisticsError("a value is NaN; write inf for a run without a result")
    return array


# --- Time to a target ----------------------------------------------------------------------------


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


# --- Curves --------------------------------------------------------------------------------------


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


# --- Tuning --------------------------------------------------------------------------------------


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
    ordered = np.sort(checked(values))
    n = len(ordered)
    place, k = np.arange(1, n + 1), np.arange(1, n + 1)[:, None]
    # The best is at most the i-th smallest unless the subset contains none of the first i.
    # C(n - i, k) / C(n, k), as a product: evaluating a distribution n * n times takes seconds.
    none = np.cumprod(np.maximum(n - place - (k - 1), 0) / (n - (k - 1)), axis=0)
    below = 1.0 - none
    chance = np.where(place <= n - k + 1, np.diff(below, prepend=0.0), 0.0)
    worth = np.where(chance > 0, ordered, 0.0)  # probability 0 times inf must not give NaN
    low, high = (ordered[np.argmax(below >= q - 1e-12, axis=1)] for q in (0.25, 0.75))
    return BestOfK(place, (chance * worth).sum(axis=1), low, high)

"""Whether two entrants differ: permutation tests, correction for pairs and looks, power.

Pure functions of arrays. The unit of a test is the independent sample: a tuning, represented by the
mean of its seeds, or a seed if each entrant was tuned once. SciPy does the permutations and the
distributions; it has no Holm correction.

References:
    Fisher (1935), The Design of Experiments (permutation tests); Holm (1979), Scandinavian Journal
    of Statistics 6; Satterthwaite (1946), Biometrics Bulletin 2 (degrees of freedom of a sum of
    variances); Dodge and Romig (1929) and Lan and DeMets (1983) (alpha spending).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from anyorder.compare.stats.estimators import LEVEL, Floats, Interval, checked
from anyorder.extras import require

#: Differences below this share of the numbers are rounding.
ROUNDING = 1e-5
#: Patterns are enumerated up to this many, and sampled beyond; many pairs need more.
PATTERNS = 2**14
#: Power that "needs about n more" aims at.
POWER = 0.8
#: Largest number of units that is advised.
MOST_UNITS = 1000


# --- Rounding and lost runs ----------------------------------------------------------------------


def snapped(a: Floats, b: Floats) -> Floats:
    """``b``, with the value of ``a`` where the two differ by no more than rounding."""
    with np.errstate(invalid="ignore"):  # inf - inf: equal as they stand
        close = np.abs(a - b) <= ROUNDING * np.maximum(np.abs(a), np.abs(b))
    return np.where(close & np.isfinite(a) & np.isfinite(b), a, b)


def measurable(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Both as they are; if a value is infinite, ranks among all values instead.

    A run without a result is the worst of all, but by an unknown amount.
    """
    if np.isfinite(a).all() and np.isfinite(b).all():
        return a, b
    ranks = require("scipy.stats").rankdata(np.concatenate([a.ravel(), b.ravel()]))
    return ranks[: a.size].reshape(a.shape), ranks[a.size :].reshape(b.shape)


# --- Tests ---------------------------------------------------------------------------------------


def paired_test(differences: ArrayLike, patterns: int = PATTERNS) -> Any:
    """Two-sided paired permutation test, which flips the signs of the differences.

    Valid if each difference would be equally likely with the opposite sign.

    Args:
        differences: Shape ``(..., n)``, finite.
        patterns: All ``2 ** n`` sign patterns are enumerated up to this many; beyond that, as many
            fixed ones are sampled.

    Returns:
        The p-value, or an array of shape ``(...)``. With ``n`` pairs it is at least
        ``2 ** (1 - n)``.
    """
    values = np.sort(checked(differences), axis=-1)  # independent of the order of the seeds
    return _p_value((values.shape,), values.tobytes(), patterns)


def relabelling_test(a: ArrayLike, b: ArrayLike, patterns: int = PATTERNS) -> Any:
    """Two-sided permutation test of the difference of means, which relabels the units.

    Valid if all units are exchangeable when the entrants are the same. Units that share seeds with
    their counterpart make the test conservative.

    Args:
        a: Shape ``(..., n)``, finite.
        b: Shape ``(..., m)``, finite.
        patterns: All splits are enumerated up to this many; beyond that, as many fixed ones are
            sampled.

    Returns:
        The p-value, or an array of shape ``(...)``. With ``n`` units each it is at least
        ``2 / C(2n, n)``.
    """
    first, second = (np.sort(checked(each), axis=-1) for each in (a, b))
    apart = np.abs(first.mean(axis=-1) - second.mean(axis=-1))
    size = np.maximum(np.abs(first), np.abs(second)).max(axis=-1)
    found = _p_value((first.shape, second.shape), first.tobytes() + second.tobytes(), patterns)
    found = np.where(apart <= ROUNDING * size, 1.0, found)
    return float(found) if found.ndim == 0 else found


@lru_cache(maxsize=4096)  # a report uses the same tests many times
def _p_value(shapes: tuple[tuple[int, ...], ...], data: bytes, patterns: int) -> Any:
    flat, parts = np.frombuffer(data), []
    for shape in shapes:
        parts.append(flat[: math.prod(shape)].reshape(shape))
        flat = flat[math.prod(shape) :]
    found = (
        require("scipy.stats")
        .permutation_test(
            tuple(parts),
            _mean if len(parts) == 1 else _difference_of_means,
            permutation_type="samples" if len(parts) == 1 else "independent",
            vectorized=True,
            n_resamples=patterns,
            batch=max(1, 2**20 // max(1, sum(part.size for part in parts))),
            axis=-1,
            rng=np.random.default_rng([19350101, *(shape[-1] for shape in shapes)]),
        )
        .pvalue
    )
    return float(found) if np.ndim(found) == 0 else found


def _mean(a: Floats, axis: int) -> Floats:
    return np.mean(a, axis=axis)


def _difference_of_means(a: Floats, b: Floats, axis: int) -> Floats:
    return np.mean(a, axis=axis) - np.mean(b, axis=axis)


# --- Many pairs, many looks ----------------------------------------------------------------------


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values in the same order; NaN means no test and is not counted."""
    tested = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    running = 0.0
    for rank, (p, i) in enumerate(tested):
        running = max(running, min(1.0, (len(tested) - rank) * p))
        adjusted[i] = running
    return adjusted


def error_of_look(look: int, level: float = LEVEL) -> float:
    """Error rate of the ``look``-th look at growing data.

    ``(1 - level) * 6 / (pi * look) ** 2``; the sum over all looks is ``1 - level``, for any number
    of extensions.

    Example:
        >>> [round(error_of_look(look), 4) for look in (1, 2, 3)]
        [0.0304, 0.0076, 0.0034]
    """
    return (1 - level) * 6 / (math.pi * look) ** 2


def least_units(pairs: int, error: float, *, paired: bool) -> int:
    """Minimum number of units with which a test can separate one of ``pairs`` pairs.

    Args:
        pairs: Number of pairs that are tested.
        error: Error rate over all of them.
        paired: Whether signs are flipped; else units are relabelled.
    """
    units = 2
    while _least_p(units, paired=paired) * max(pairs, 1) > error + 1e-12:
        units += 1
    return units


def _least_p(units: int, *, paired: bool) -> float:
    return 2 / (2.0**units if paired else float(math.comb(2 * units, units)))


def patterns_for(pairs: int, error: float) -> int:
    """Number of sampled patterns that can still separate one of ``pairs`` pairs."""
    return max(PATTERNS, math.ceil(4 * pairs / error))


# --- Power ---------------------------------------------------------------------------------------


def effect_size(a: Floats, b: Floats, *, paired: bool) -> float:
    """Difference of the means in standard deviations of a unit; of a difference, if paired."""
    apart = abs(float(a.mean() - b.mean()))
    spread = (a - b).std(ddof=1) if paired else math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    if apart == 0:
        return 0.0
    return apart / float(spread) if spread > 0 else math.inf


def power(units: ArrayLike, effect: float, error: float, *, paired: bool) -> Any:
    """Probability that a test separates entrants with this effect.

    The power of Student's test, which the permutation test has closely for normal units.

    Args:
        units: Number of units per entrant, at least 2; any shape.
        effect: See :func:`effect_size`.
        error: Two-sided error of the test.
        paired: Whether signs are flipped; else units are relabelled.
    """
    laws = require("scipy.stats")
    n = np.asarray(units, dtype=np.float64)
    degrees, shift = (
        (n - 1, effect * np.sqrt(n)) if paired else (2 * n - 2, effect * np.sqrt(n / 2))
    )
    edge = laws.t.isf(error / 2, degrees)
    return laws.nct.sf(edge, degrees, shift) + laws.nct.cdf(-edge, degrees, shift)


def units_needed(effect: float, pairs: int, error: float, *, paired: bool) -> int | None:
    """Number of units for a power of 80 %; None above 1,000.

    Args:
        effect: See :func:`effect_size`.
        pairs: Number of pairs that are tested.
        error: Error rate over all of them.
        paired: Whether signs are flipped; else units are relabelled.
    """
    least = least_units(pairs, error, paired=paired)
    if math.isinf(effect):
        return least
    units = np.arange(least, MOST_UNITS + 1)
    enough = power(units, effect, error / max(pairs, 1), paired=paired) >= POWER
    return int(units[np.argmax(enough)]) if effect > 0 and enough.any() else None


# --- Units and test rows together ----------------------------------------------------------------


def crossed_interval(differences: ArrayLike, rows: ArrayLike, level: float = LEVEL) -> Interval:
    """Interval of a mean difference over units that share their test rows.

    Units and rows are independent, so two variances of the mean add: between units, and over
    resampled rows. Student's t, with Satterthwaite's degrees of
    freedom.

    Args:
        differences: Shape ``(n,)``, ``n >= 2``: difference of each unit on the real rows.
        rows: Shape ``(r,)``: mean difference over the units on each of ``r`` resampled sets of
            rows. Empty if no rows were resampled: their variance is then ignored.
        level: Coverage.
    """
    units, drawn = checked(differences), np.asarray(rows, dtype=np.float64)
    n, middle = len(units), float(units.mean())
    parts = [(float(units.var(ddof=1)) / n, n - 1)]
    if drawn.size > 1:
        parts.append((float(drawn.var(ddof=1)), drawn.size - 1))
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return Interval(middle, middle)
    degrees = 1 / sum((part / variance) ** 2 / freedom for part, freedom in parts)
    half = float(require("scipy.stats").t.isf((1 - level) / 2, degrees)) * math.sqrt(variance)
    return Interval(middle - half, middle + half)

"""Measured values with intervals, and functions that compute them from repetitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from anyorder.compare.stats.differences import crossed_interval
from anyorder.errors import AnyOrderError


class StudyError(AnyOrderError, ValueError):
    """A study, claim or measurement is invalid."""


@dataclass(frozen=True)
class Measurement:
    """A value with its uncertainty interval.

    Args:
        value: The estimate; finite.
        low: Lower end of the interval; ``-inf`` if unknown.
        high: Upper end of the interval; ``inf`` if unknown.
        n: Number of independent repetitions, at least 1.

    Raises:
        StudyError: If ``low <= value <= high`` does not hold, the value is not finite or ``n < 1``.

    Example:
        >>> Measurement(0.5, 0.4, 0.6, 3).overlaps(0.55)
        True
    """

    value: float
    low: float
    high: float
    n: int

    def __post_init__(self) -> None:
        """Check that this is an interval around a finite value."""
        if not math.isfinite(self.value):
            raise StudyError(
                f"expected a finite value, got {self.value}; if runs can diverge, use a bounded "
                "quantity (a capped loss, a success rate) instead"
            )
        if not self.low <= self.value <= self.high:
            raise StudyError(
                f"expected low <= value <= high, got {self.low} <= {self.value} <= {self.high}"
            )
        if self.n < 1:
            raise StudyError(f"expected at least one repetition, got n={self.n}")

    def overlaps(self, value: float) -> bool:
        """Whether ``value`` is in the closed interval."""
        return self.low <= value <= self.high

    def to_json(self) -> dict[str, float | int | None]:
        """Convert to JSON values; an infinite end becomes ``null``."""
        return {
            "value": self.value,
            "low": self.low if math.isfinite(self.low) else None,
            "high": self.high if math.isfinite(self.high) else None,
            "n": self.n,
        }

    @classmethod
    def from_json(cls, data: dict[str, float | int | None]) -> Measurement:
        """The inverse of :meth:`to_json`."""
        value, low, high, n = data["value"], data["low"], data["high"], data["n"]
        if value is None or n is None:
            raise StudyError(f"expected a value and its n, got {data}")
        return cls(
            float(value),
            -math.inf if low is None else float(low),
            math.inf if high is None else float(high),
            int(n),
        )


def exact(value: float, n: int = 1) -> Measurement:
    """A quantity without variation, such as a count of bytes or parameters."""
    return Measurement(float(value), float(value), float(value), n)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Measurement:
    """Mean with Student's t interval over independent repetitions.

    With one repetition the variation is unknown, so the interval is the whole real line.

    Args:
        values: One number per repetition.
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        The mean, its two-sided interval, and the number of repetitions.

    Raises:
        StudyError: If ``values`` is empty or ``confidence`` is not in (0, 1).

    Example:
        >>> m = mean_interval([1.0, 2.0, 3.0])
        >>> round(m.value, 3), round(m.low, 3), round(m.high, 3)
        (2.0, -0.484, 4.484)
    """
    data = _checked(values, confidence)
    mean = float(data.mean())
    if data.size == 1:
        return Measurement(mean, -math.inf, math.inf, 1)
    ends = crossed_interval(data, (), confidence)
    return Measurement(mean, ends.low, ends.high, data.size)


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], confidence: float = 0.95
) -> Measurement:
    """Geometric mean of paired ratios with a t interval on their logarithms.

    Args:
        numerators: One positive number per repetition.
        denominators: The positive number of the same repetition (same seed, same data).
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        The geometric mean ratio and its interval.

    Raises:
        StudyError: If the lengths differ or a number is not positive.
    """
    if len(numerators) != len(denominators):
        raise StudyError(
            f"expected as many numerators as denominators, got {len(numerators)} and "
            f"{len(denominators)}; pair them by repetition"
        )
    top, bottom = np.asarray(numerators, float), np.asarray(denominators, float)
    if bool(np.any(top <= 0)) or bool(np.any(bottom <= 0)):
        raise StudyError("expected positive numbers for a ratio of logarithms")
    logs = mean_interval((np.log(top) - np.log(bottom)).tolist(), confidence)
    # exp overflows beyond 709: that end of the interval is unknown.
    high = math.exp(logs.high) if logs.high < 709.0 else math.inf
    return Measurement(math.exp(logs.value), math.exp(logs.low), high, logs.n)


def range_interval(values: Sequence[float], confidence: float = 0.95) -> Measurement:
    """Mean and central range of repetitions that are not independent.

    Random splits or resamples of one data set overlap. A t interval would shrink with their number
    and be too narrow; the range does not shrink.

    Args:
        values: One number per split or resample.
        confidence: Fraction of the repetitions inside the interval, in (0, 1).
    """
    data = _checked(values, confidence)
    mean, tail = float(data.mean()), 50.0 * (1.0 - confidence)
    low, high = np.percentile(data, [tail, 100.0 - tail])
    return Measurement(mean, min(float(low), mean), max(float(high), mean), data.size)


def jackknife_interval(
    value: float, left_out: Sequence[float], confidence: float = 0.95
) -> Measurement:
    r"""Jackknife interval of a positive statistic, by leaving out one unit at a time.

    The interval is computed for the logarithm, with the jackknife variance :math:`\frac{n-1}{n}
    \sum_i (z_i - \bar z)^2` and Student's t. If a unit is a whole person, document or machine, this
    accounts for the correlation of all data that involve the same one.

    Args:
        value: The statistic of all data, positive.
        left_out: The positive statistic without each of the n units in turn.
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        The value with its interval; n is the number of units.

    Raises:
        StudyError: If a number is not positive or there are fewer than two units.
    """
    data = _checked(left_out, confidence)
    if data.size < 2 or value <= 0 or not bool((data > 0).all()):
        raise StudyError("expected a positive statistic, with and without each of n >= 2 units")
    logs = np.log(data)
    spread = math.sqrt((data.size - 1) / data.size * float(((logs - logs.mean()) ** 2).sum()))
    half = float(stdtrit(data.size - 1, 0.5 + confidence / 2.0)) * spread
    return Measurement(value, value * math.exp(-half), value * math.exp(half), data.size)


def _checked(values: Sequence[float], confidence: float) -> np.ndarray:
    data = np.asarray(values, float)
    if data.ndim != 1 or data.size == 0:
        raise StudyError(f"expected a non-empty list of numbers, got shape {data.shape}")
    if not 0.0 < confidence < 1.0:
        raise StudyError(f"expected a confidence in (0, 1), got {confidence}")
    return data

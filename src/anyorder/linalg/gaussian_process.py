r"""An exact Gaussian process with a squared exponential kernel, and the gradient of its mean.

:math:`k(x, x') = s^2 \exp(-\|x - x'\|^2 / 2 \ell^2)` with independent noise of variance
:math:`s^2 \nu`. Values are centred by their mean. The scale :math:`s` has a closed form; the length
:math:`\ell` is chosen from a geometric grid by the likelihood. Mean, gradient, uncertainty of the
gradient and length all belong to this one kernel. Everything is computed in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

#: Lengths that are tried, in multiples of the median distance between points.
LENGTHS = tuple(2.0**power for power in range(-1, 8))


@dataclass(frozen=True, slots=True)
class GaussianProcess:
    """A fitted Gaussian process.

    Attributes:
        points: shape ``(n, d)``, float64.
        weights: the solution of ``(K + noise I) weights = values - mean``, shape ``(n,)``.
        factor: lower Cholesky factor of ``K + noise I``, for a kernel of scale 1, ``(n, n)``.
        length: the length of the kernel, in units of the points.
        mean: the mean of the values.
        scale: standard deviation of the process, in units of the values.
    """

    points: Tensor
    weights: Tensor
    factor: Tensor
    length: float
    mean: float
    scale: float

    def value(self, x: Tensor) -> Tensor:
        """Return the posterior mean at ``x``, shape ``(d,)`` to ``()``."""
        return _kernel(x[None], self.points, self.length)[0] @ self.weights + self.mean

    def gradient(self, x: Tensor) -> Tensor:
        """Return the gradient of the posterior mean at ``x``, shape ``(d,)``."""
        near = _kernel(x[None], self.points, self.length)[0] * self.weights
        return (near @ self.points - near.sum() * x) / self.length**2

    def uncertainty(self, points: Tensor) -> Tensor:
        """Return the trace of the gradient's posterior covariance, ``(c, d)`` to ``(c,)``."""
        size, centre = points.shape[1], points.mean(0)
        mine, theirs = self.points - centre, points - centre
        near = _kernel(points, self.points, self.length)
        inverse = torch.cholesky_inverse(self.factor)
        # Sums over pairs of points, weighted by the inverse, of products of kernel slopes.
        plain, crossed = near @ inverse, near * (theirs @ mine.T)
        known = ((near @ (inverse * (mine @ mine.T))) * near).sum(1)
        known += theirs.square().sum(1) * (plain * near).sum(1) - 2.0 * (plain * crossed).sum(1)
        return self.scale**2 * (size - known / self.length**2) / self.length**2


def fit(
    points: Tensor, values: Tensor, *, noise: float = 1e-6, length: float | None = None
) -> GaussianProcess:
    """Fit a Gaussian process.

    Args:
        points: shape ``(n, d)`` with n >= 1.
        values: shape ``(n,)``, finite.
        noise: variance of the noise, as a share of that of the process.
        length: the length of the kernel; by default the one of highest likelihood from
            :data:`LENGTHS`, the larger one if tied.
    """
    points, values = points.double(), values.double()
    mean = float(values.mean())
    centred = values - mean
    squares = _squares(points, points)
    lengths = [length] if length is not None else _lengths(squares)
    best: tuple[float, GaussianProcess] | None = None
    for tried in sorted(lengths, reverse=True):
        covariance = (squares / (-2.0 * tried**2)).exp_()
        covariance.diagonal().add_(noise)
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if int(failed):
            continue
        weights = torch.cholesky_solve(centred[:, None], factor)[:, 0]
        variance = max(float(centred @ weights) / len(values), 0.0)
        loss = _unlikelihood(variance, factor)
        if best is None or loss < best[0]:
            fitted = GaussianProcess(points, weights, factor, tried, mean, math.sqrt(variance))
            best = (loss, fitted)
    if best is None:  # points so close together that the kernel is singular at every length
        return fit(points, values, noise=max(100.0 * noise, 1e-10), length=length)
    return best[1]


def _unlikelihood(variance: float, factor: Tensor) -> float:
    """Negative log likelihood per value, up to constants, at the best scale."""
    spread = float(factor.diagonal().log().mean())
    return 0.5 * math.log(variance) + spread if variance > 0 else spread


def _lengths(squares: Tensor) -> list[float]:
    """The lengths to try; 1 if there are no two different points."""
    count = len(squares)
    places = torch.tril_indices(count, count, -1)
    distances = squares[places[0], places[1]].sqrt()
    distances = distances[distances > 0]
    median = float(distances.median()) if len(distances) else 1.0
    return [median * factor for factor in LENGTHS]


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances, ``(m, d)`` and ``(n, d)`` to ``(m, n)``, without cancellation."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square_()


def _kernel(a: Tensor, b: Tensor, length: float) -> Tensor:
    return (_squares(a, b) / (-2.0 * length**2)).exp_()

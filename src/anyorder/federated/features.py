r"""Random Fourier features of the squared exponential kernel: a process as a vector to be sent.

:math:`\phi(x) = \sqrt{2/m} \, (\cos Wx, \sin Wx)` with :math:`m / 2` rows of :math:`W` drawn from
:math:`N(0, I / \ell^2)` has :math:`\phi(x)^\top \phi(x') \approx k(x, x')`. Ridge regression on the
features therefore approximates the mean of a Gaussian process by :math:`w^\top \phi(x)`. Clients
with the same seed have the same :math:`W`, so the mean of their weights is the model of the mean of
their functions.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from anyorder.engine import Engine
from anyorder.points.directions import Seeded


@dataclass(frozen=True)
class RandomFeatures:
    """Features of points, the same wherever ``size``, ``count`` and ``seed`` are the same.

    Args:
        size: number of coordinates of a point.
        count: number of features, even.
        seed: seed of the frequencies.
    """

    size: int
    count: int
    seed: int = 0

    def frequencies(self, length: float) -> Tensor:
        """Return :math:`W` for a length, shape ``(count / 2, size)``, float64."""
        return _normals(self.size, self.count // 2, self.seed) / length

    def __call__(self, points: Tensor, length: float) -> Tensor:
        """Return the features of points, ``(n, size)`` to ``(n, count)``."""
        turns = points @ self.frequencies(length).T
        return torch.cat([turns.cos(), turns.sin()], 1) * math.sqrt(2.0 / self.count)

    def fit(self, points: Tensor, values: Tensor, length: float, noise: float) -> Tensor:
        """Return the weights of ridge regression on the centred values, shape ``(count,)``."""
        features = self(points, length)
        covariance = features @ features.T
        covariance.diagonal().add_(noise)
        return features.T @ torch.linalg.solve(covariance, values - values.mean())

    def gradient(self, weights: Tensor, x: Tensor, length: float) -> Tensor:
        """Return the gradient of a model at ``x``, shape ``(size,)``."""
        frequencies = self.frequencies(length)
        turns = frequencies @ x
        cosines, sines = weights.chunk(2)
        slopes = sines * turns.cos() - cosines * turns.sin()
        return (slopes @ frequencies) * math.sqrt(2.0 / self.count)


@functools.lru_cache(maxsize=4)
def _normals(size: int, count: int, seed: int) -> Tensor:
    """Frequencies for length 1, kept since every local step of every client needs them."""
    like = torch.empty(count, size)
    return Seeded(seed, 0).tensor("features", like, Engine("eager")).double()

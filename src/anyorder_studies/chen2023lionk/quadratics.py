"""Random quadratics in a ball, and their solution by another method for comparison."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROWS, COLUMNS = 6, 5
#: Curvatures from 1 down to 1 over this number.
CONDITION = 100.0
BALLS = ("l1", "l2", "group", "spectral")


@dataclass(frozen=True)
class Quadratic:
    """``f(x) = (x - target)' metric (x - target) / 2`` of a matrix x, flattened by rows.

    Attributes:
        metric: shape (30, 30), positive definite, largest eigenvalue 1.
        target: the minimum without constraint, shape (6, 5).
        start: a point to start from, shape (6, 5).
    """

    metric: np.ndarray
    target: np.ndarray
    start: np.ndarray

    def slope(self, x: np.ndarray) -> np.ndarray:
        """The gradient at ``x``, with the shape of ``x``."""
        return (self.metric @ (x - self.target).ravel()).reshape(x.shape)


def random_quadratic(seed: int, radius: float) -> Quadratic:
    """Return a quadratic with a random basis, whose minimum is far outside balls of ``radius``.

    Initial point and minimum have independent normal elements with a standard deviation of three
    radii, so they are outside every ball of :data:`BALLS`.
    """
    rng = np.random.default_rng([seed, 61])
    size = ROWS * COLUMNS
    basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
    metric = basis @ np.diag(np.logspace(0.0, -np.log10(CONDITION), size)) @ basis.T
    target, start = rng.normal(size=(2, ROWS, COLUMNS)) * 3.0 * radius
    return Quadratic(metric, target, start)


def projected(ball: str, x: np.ndarray, radius: float) -> np.ndarray:
    """Project the matrix ``x`` onto a ball of ``radius`` around zero.

    ``l1`` is the box of its dual norm, ``group`` a ball for each row, ``spectral`` singular values
    of at most ``radius``.
    """
    if ball == "l1":
        return np.clip(x, -radius, radius)
    if ball == "spectral":
        left, sizes, right = np.linalg.svd(x, full_matrices=False)
        return left @ np.diag(sizes.clip(max=radius)) @ right
    axis = 1 if ball == "group" else None
    norms = np.sqrt((x**2).sum(axis, keepdims=True))
    return x * np.minimum(1.0, radius / norms)


def constrained_optimum(ball: str, problem: Quadratic, radius: float) -> np.ndarray:
    """Minimise a quadratic in a ball by accelerated projected gradient descent.

    Curvatures are between 0.01 and 1, so only rounding errors remain after 1,000 steps.
    """
    root = np.sqrt(1.0 / CONDITION)
    ahead = (1.0 - root) / (1.0 + root)
    x = previous = projected(ball, problem.start, radius)
    for _ in range(1_000):
        y = x + ahead * (x - previous)
        previous, x = x, projected(ball, y - problem.slope(y), radius)
    return x

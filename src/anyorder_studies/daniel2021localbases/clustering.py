"""Dissimilarities between simulations, and k-medoids on any of them.

A *sample* is one simulation: one field, or the fields of one run at several times. An array of
samples has shape ``(n, d)`` or ``(n, times, d)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyorder.errors import AnyOrderError

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Dissimilarity = Callable[[Array, Array], Array]


class LocalBasesError(AnyOrderError, ValueError):
    """Samples, weights or settings are invalid."""


def as_samples(samples: Any) -> Array:
    """Convert samples to a finite float64 array of shape (n, times, d).

    Raises:
        LocalBasesError: If the shape is not (n, d) or (n, times, d), or a number is not finite.
    """
    array = np.asarray(samples, dtype=np.float64)
    if array.ndim == 2:
        array = array[:, None, :]
    if array.ndim != 3 or 0 in array.shape:
        raise LocalBasesError(
            f"expected samples of shape (n, d) or (n, times, d), got {np.shape(samples)}"
        )
    if not bool(np.isfinite(array).all()):
        raise LocalBasesError("expected finite samples, got NaN or infinity; drop failed runs")
    return array


def sample_subspaces(samples: Array, modes: int) -> Array:
    """Orthonormal rows that best span each sample: shape (n, modes, d).

    For a single field this is the field divided by its norm.

    Raises:
        LocalBasesError: If a sample is zero or spans fewer than ``modes`` dimensions.
    """
    if not 1 <= modes <= min(samples.shape[1:]):
        raise LocalBasesError(
            f"expected 1 to {min(samples.shape[1:])} modes per sample, got {modes}"
        )
    _, sizes, rows = np.linalg.svd(samples, full_matrices=False)
    flat = sizes[:, modes - 1] <= 1e-12 * sizes[:, 0]
    if bool(flat.any()):
        raise LocalBasesError(
            f"sample {int(np.flatnonzero(flat)[0])} spans fewer than {modes} dimensions, so its "
            "angle to others is undefined; drop it or ask for fewer modes per sample"
        )
    return rows[:, :modes]


def angle_dissimilarity(samples: Any, others: Any = None, *, modes: int = 1) -> Array:
    r"""Sine of the angle between samples; for subspaces, the root mean square of the sines.

    With orthonormal bases :math:`Q_a, Q_b` of ``r`` columns and principal angles
    :math:`\theta_1, \dots, \theta_r` between their spans,

    .. math:: \delta(a, b)^2 = \frac1r \sum_i \sin^2\theta_i = 1 - \|Q_a^T Q_b\|_F^2 / r.

    It is in [0, 1] and independent of amplitude and sign. For ``modes=1`` and single fields it is
    :math:`\sqrt{1 - \cos^2\angle(a, b)}`. Angles below 1e-8 are rounding errors.

    Args:
        samples: (n, d) or (n, times, d).
        others: (m, d) or (m, times, d); by default the samples themselves.
        modes: Dimension ``r`` of the subspace that represents a sample.

    Returns:
        Dissimilarities of shape (n, m).

    Raises:
        LocalBasesError: If shapes do not match or a sample spans fewer than ``modes`` dimensions.
    """
    left = sample_subspaces(as_samples(samples), modes)
    right = left if others is None else sample_subspaces(as_samples(others), modes)
    _require_same_grid(left, right)
    n, r, d = left.shape
    products = left.reshape(n * r, d) @ right.reshape(-1, d).T
    overlap = np.square(products).reshape(n, r, right.shape[0], r).sum(axis=(1, 3))
    result = np.sqrt(np.clip(1.0 - overlap / r, 0.0, 1.0))
    if others is None:
        np.fill_diagonal(result, 0.0)
    return result


def euclidean_dissimilarity(samples: Any, others: Any = None) -> Array:
    """Euclidean distance between samples, over space and times: shape (n, m)."""
    left = as_samples(samples)
    right = left if others is None else as_samples(others)
    _require_same_grid(left, right)
    a, b = left.reshape(left.shape[0], -1), right.reshape(right.shape[0], -1)
    if a.shape[1] != b.shape[1]:
        raise LocalBasesError(
            f"expected equally many times in both sets, got {left.shape[1]} and {right.shape[1]}"
        )
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None, :] - 2.0 * (a @ b.T)
    result = np.sqrt(np.maximum(squares, 0.0))
    if others is None:
        np.fill_diagonal(result, 0.0)
    return result


@dataclass(frozen=True)
class Clustering:
    """A k-medoids partition: medoid indices (k,), labels (n,) in 0..k-1, summed dissimilarity."""

    medoids: Labels
    labels: Labels
    cost: float


def kmedoids(dissimilarity: Any, k: int, *, starts: int = 10, seed: int = 0) -> Clustering:
    """Partition around medoids: choose ``k`` samples with minimal total dissimilarity.

    From each start (initial medoids as in k-means++), the swap of a medoid with another sample that
    reduces the cost most is applied until no swap reduces it; the best of all starts is returned.
    One pass over the matrix gives the costs of all swaps, so a swap costs O(n^2).

    Args:
        dissimilarity: Square matrix (n, n), non-negative with zero diagonal; need not be a metric.
        k: Number of clusters, 1 to n.
        starts: Number of random starts.
        seed: Seed of the starts.

    Returns:
        The partition; medoids are sorted by index, so equal partitions compare equal.

    Raises:
        LocalBasesError: If the matrix or a number is invalid.
    """
    matrix = np.asarray(dissimilarity, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise LocalBasesError(f"expected a square matrix, got shape {matrix.shape}")
    if not bool(np.isfinite(matrix).all()) or bool((matrix < 0).any()):
        raise LocalBasesError("expected finite, non-negative dissimilarities")
    if bool((np.diagonal(matrix) != 0).any()):
        raise LocalBasesError("expected a zero diagonal: a sample does not differ from itself")
    if not 1 <= k <= matrix.shape[0]:
        raise LocalBasesError(f"expected 1 to {matrix.shape[0]} clusters, got {k}")
    if starts < 1:
        raise LocalBasesError(f"expected at least one start, got {starts}")
    rng = np.random.default_rng(seed)
    runs = [_swap_until_stable(matrix, _spread_start(matrix, k, rng)) for _ in range(starts)]
    costs = [float(matrix[:, found].min(axis=1).sum()) for found in runs]
    medoids = np.sort(runs[int(np.argmin(costs))])
    near = matrix[:, medoids]
    labels = near.argmin(axis=1)
    labels[medoids] = np.arange(k)  # duplicates at distance zero must not empty a cluster
    return Clustering(medoids, labels, float(near.min(axis=1).sum()))


def _spread_start(matrix: Array, k: int, rng: np.random.Generator) -> Labels:
    """Draw medoids one by one, with probability proportional to the squared distance."""
    chosen = [_draw(np.ones_like(matrix[0]), rng)]
    nearest = matrix[:, chosen[0]]
    while len(chosen) < k:
        weights = np.square(nearest)
        weights[chosen] = 0.0
        if not bool(weights.any()):
            weights = np.ones_like(nearest)
            weights[chosen] = 0.0
        chosen.append(_draw(weights, rng))
        nearest = np.minimum(nearest, matrix[:, chosen[-1]])
    return np.array(chosen, dtype=np.int64)


def _draw(weights: Array, rng: np.random.Generator) -> int:
    """Draw an index with probability proportional to its weight, never one with weight zero."""
    sums = np.cumsum(weights)
    return int(np.count_nonzero(sums <= rng.random() * sums[-1]))


def _swap_until_stable(matrix: Array, medoids: Labels) -> Labels:
    medoids = medoids.copy()
    k = medoids.size
    while True:
        near = matrix[:, medoids]
        owner = near.argmin(axis=1)
        first = near.min(axis=1)
        second = np.partition(near, 1, axis=1)[:, 1] if k > 1 else np.full(first.shape, np.inf)
        # gain[o, c]: change at sample o if c is added; loss: increase at o if its medoid is
        # removed.
        gain = np.minimum(matrix - first[:, None], 0.0)
        loss = np.minimum(matrix, second[:, None]) - first[:, None] - gain
        change = gain.sum(axis=0)[None, :] + np.eye(k)[:, owner] @ loss
        change[:, medoids] = 0.0
        leaves, joins = np.unravel_index(int(change.argmin()), change.shape)
        if change[leaves, joins] >= -1e-12 * (first.sum() + 1e-300):
            return medoids
        medoids[leaves] = joins


def _require_same_grid(left: Array, right: Array) -> None:
    if left.shape[2] != right.shape[2]:
        raise LocalBasesError(
            f"expected fields on the same grid, got {left.shape[2]} and {right.shape[2]} values"
        )

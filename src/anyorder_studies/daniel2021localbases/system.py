"""A dictionary of local reduced-order bases: clusters simulations, reduces each cluster, selects.

The components are dissimilarities and k-medoids (:mod:`.clustering`), proper orthogonal
decomposition per cluster, a classifier that predicts the cluster of a new case from its inputs, and
a criterion that predicts the classifier accuracy from which local bases are better.

References:
    T. Daniel, F. Casenave, N. Akkari, A. Ketata, D. Ryckelynck, "Physics-informed cluster analysis
    and a priori efficiency criterion for the construction of local reduced-order bases", 2021,
    arXiv:2103.13683.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np

from anyorder_studies.daniel2021localbases.clustering import (
    Array,
    Clustering,
    Dissimilarity,
    Labels,
    LocalBasesError,
    angle_dissimilarity,
    as_samples,
    euclidean_dissimilarity,
    kmedoids,
)

__all__ = [
    "Classifier",
    "Clustering",
    "Efficiency",
    "LocalBases",
    "LocalBasesError",
    "angle_dissimilarity",
    "choose_clusters",
    "efficiency_criterion",
    "euclidean_dissimilarity",
    "kmedoids",
    "pod",
    "projection_error",
]


class Classifier(Protocol):
    """An object with scikit-learn's ``fit`` and ``predict``."""

    def fit(self, X: Array, y: Labels) -> Any:
        """Learn labels ``y`` (n,) from inputs ``X`` (n, p)."""
        ...

    def predict(self, X: Array) -> Any:
        """Labels (n,) of inputs ``X`` (n, p)."""
        ...


def pod(samples: Any, *, modes: int | None = None, tolerance: float | None = None) -> Array:
    """Proper orthogonal decomposition: the orthonormal columns that best span the samples.

    The mean is not subtracted: the projections of a reduced model are linear.

    Args:
        samples: (n, d) or (n, times, d); fields are not normalized.
        modes: Number of columns; fewer are returned if the samples span less.
        tolerance: Instead of ``modes``: use the smallest number of columns for which the square
            root of the neglected energy is at most this fraction of that of the total, in (0, 1).

    Returns:
        Basis of shape (d, r) with orthonormal columns, strongest first.

    Raises:
        LocalBasesError: If not exactly one of ``modes`` and ``tolerance`` is set, the value is
            invalid, or all samples are zero.
    """
    fields = as_samples(samples)
    fields = fields.reshape(-1, fields.shape[2])
    if (modes is None) == (tolerance is None):
        raise LocalBasesError("expected either modes= or tolerance=, and only one of the two")
    _, sizes, rows = np.linalg.svd(fields, full_matrices=False)
    if sizes[0] == 0.0:
        raise LocalBasesError("all samples are zero: there is nothing to span")
    rank = int((sizes > 1e-13 * sizes[0]).sum())
    if modes is not None:
        if modes < 1:
            raise LocalBasesError(f"expected at least one mode, got {modes}")
        count = modes
    else:
        if not 0.0 < cast(float, tolerance) < 1.0:
            raise LocalBasesError(f"expected a tolerance in (0, 1), got {tolerance}")
        energy = np.square(sizes)
        neglected = np.append(np.cumsum(energy[::-1])[::-1][1:], 0.0)
        enough = np.sqrt(neglected / energy.sum()) <= cast(float, tolerance)
        count = int(enough.argmax()) + 1
    return np.ascontiguousarray(rows[: min(count, rank)].T)


def projection_error(samples: Any, basis: Any) -> Array:
    """Relative error of the best approximation in the span of ``basis``, one per sample.

    Args:
        samples: (n, d) or (n, times, d), none of them zero.
        basis: (d, r) with orthonormal columns.

    Returns:
        ``||u - B B^T u|| / ||u||`` over space and times, shape (n,), each in [0, 1].

    Raises:
        LocalBasesError: If shapes do not match or a sample is zero.
    """
    fields = as_samples(samples)
    columns = np.asarray(basis, dtype=np.float64)
    if columns.ndim != 2 or columns.shape[0] != fields.shape[2]:
        raise LocalBasesError(
            f"expected a basis of shape ({fields.shape[2]}, modes), got {columns.shape}"
        )
    norms = np.linalg.norm(fields, axis=(1, 2))
    if bool((norms == 0.0).any()):
        raise LocalBasesError("a relative error needs samples that are not zero")
    rest = fields - (fields @ columns) @ columns.T
    return np.linalg.norm(rest, axis=(1, 2)) / norms


class LocalBases:
    """Local bases for simulations, computed by clustering and selected by a classifier.

    Args:
        clusters: Number of clusters ``k``.
        modes: Modes per local basis (and of the global basis used for comparison).
        tolerance: Instead of ``modes``, the POD tolerance of :func:`pod`.
        dissimilarity: ``"angle"``, ``"euclidean"``, or a function of two arrays of samples
            (n, times, d), (m, times, d) that returns (n, m).
        sample_modes: Dimension of the subspace that represents a sample in ``"angle"``.
        weights: Quadrature weights (d,), all positive, of the inner product; all 1 by default.
        classifier: Object with ``fit`` and ``predict`` that learns clusters from inputs; by default
            a random forest of scikit-learn. The paper uses a deep network.
        starts: Starts of k-medoids.
        seed: Seed of k-medoids and of the default classifier.

    Attributes:
        clustering_: Partition of the training samples.
        bases_: One basis (d, r) per cluster, orthonormal in the weighted inner product.
        global_basis_: A single basis for all samples, with its size chosen in the same way.

    Example:
        >>> import numpy as np
        >>> x = np.linspace(0, 1, 50)
        >>> place = np.random.default_rng(0).uniform(0.1, 0.9, (60, 1))
        >>> model = LocalBases(clusters=4, modes=2).fit(np.exp(-(((x - place) / 0.05) ** 2)), place)
        >>> labels = model.predict(np.array([[0.5]]))
        >>> field = np.exp(-(((x - 0.5) / 0.05) ** 2))
        >>> bool(model.error(field[None], labels)[0] < model.global_error(field[None])[0])
        True
    """

    clustering_: Clustering
    bases_: list[Array]
    global_basis_: Array

    def __init__(
        self,
        clusters: int,
        *,
        modes: int | None = None,
        tolerance: float | None = None,
        dissimilarity: str | Dissimilarity = "angle",
        sample_modes: int = 1,
        weights: Any = None,
        classifier: Classifier | None = None,
        starts: int = 10,
        seed: int = 0,
    ) -> None:
        if isinstance(dissimilarity, str) and dissimilarity not in ("angle", "euclidean"):
            raise LocalBasesError(
                f"expected dissimilarity 'angle', 'euclidean' or a function, got {dissimilarity!r}"
            )
        self.clusters, self.modes, self.tolerance = clusters, modes, tolerance
        self.starts, self.seed = starts, seed
        self._name, self._sample_modes = dissimilarity, sample_modes
        self._classifier = classifier
        self._roots = None if weights is None else _root_weights(weights)
        self._medoids: Array | None = None

    def fit(self, samples: Any, inputs: Any = None) -> LocalBases:
        """Cluster the samples, reduce each cluster and, if there are inputs, train the classifier.

        Args:
            samples: Training simulations, (n, d) or (n, times, d).
            inputs: Inputs of each case, known before the simulation, (n, p).

        Returns:
            ``self``.
        """
        fields = self._weighted(samples)
        matrix = self._compare(fields, fields)
        np.fill_diagonal(matrix, 0.0)
        self.clustering_ = kmedoids(matrix, self.clusters, starts=self.starts, seed=self.seed)
        self._medoids = fields[self.clustering_.medoids]
        self.global_basis_ = pod(fields, modes=self.modes, tolerance=self.tolerance)
        self.bases_ = [
            pod(
                fields[self.clustering_.labels == cluster],
                modes=self.modes,
                tolerance=self.tolerance,
            )
            for cluster in range(self.clusters)
        ]
        if inputs is not None:
            if self._classifier is None:
                self._classifier = _default_classifier(self.seed)
            self._classifier.fit(_as_inputs(inputs, fields.shape[0]), self.clustering_.labels)
        return self

    def assign(self, samples: Any) -> Labels:
        """Cluster of the nearest medoid, as predicted by a perfect classifier, shape (n,)."""
        fields = self._weighted(samples)
        return self._compare(fields, self._fitted()).argmin(axis=1)

    def predict(self, inputs: Any) -> Labels:
        """Cluster that the classifier predicts for inputs (n, p), without simulation."""
        self._fitted()
        if self._classifier is None:
            raise LocalBasesError("no classifier was trained: call fit(samples, inputs)")
        return np.asarray(self._classifier.predict(_as_inputs(inputs)), dtype=np.int64)

    def error(self, samples: Any, labels: Any) -> Array:
        """Relative projection error of each sample on the basis of its label, (n,)."""
        fields = self._weighted(samples)
        self._fitted()
        chosen = np.asarray(labels, dtype=np.int64)
        if chosen.shape != (fields.shape[0],):
            raise LocalBasesError(
                f"expected one label per sample, got {chosen.shape} for {fields.shape[0]} samples"
            )
        if bool(((chosen < 0) | (chosen >= self.clusters)).any()):
            raise LocalBasesError(f"expected labels in 0..{self.clusters - 1}")
        errors = np.empty(fields.shape[0])
        for cluster in np.unique(chosen):
            rows = chosen == cluster
            errors[rows] = projection_error(fields[rows], self.bases_[cluster])
        return errors

    def global_error(self, samples: Any) -> Array:
        """Relative projection error of each sample on the global basis, (n,)."""
        self._fitted()
        return projection_error(self._weighted(samples), self.global_basis_)

    def efficiency(self, samples: Any) -> Efficiency:
        """Apply :func:`efficiency_criterion` to simulations, preferably not the training ones."""
        fields = self._weighted(samples)
        labels = self._compare(fields, self._fitted()).argmin(axis=1)
        errors = np.stack([projection_error(fields, basis) for basis in self.bases_], axis=1)
        return efficiency_criterion(errors, labels, projection_error(fields, self.global_basis_))

    def _compare(self, left: Array, right: Array) -> Array:
        if not isinstance(self._name, str):
            return np.array(self._name(left, right), dtype=np.float64)
        if self._name == "euclidean":
            return euclidean_dissimilarity(left, right)
        return angle_dissimilarity(left, right, modes=self._sample_modes)

    def _weighted(self, samples: Any) -> Array:
        fields = as_samples(samples)
        if self._roots is None:
            return fields
        if self._roots.shape != (fields.shape[2],):
            raise LocalBasesError(
                f"expected {fields.shape[2]} weights, one per value of a field, got "
                f"{self._roots.shape[0]}"
            )
        return fields * self._roots

    def _fitted(self) -> Array:
        if self._medoids is None:
            raise LocalBasesError("the bases are not built yet: call fit(samples) first")
        return self._medoids


@dataclass(frozen=True)
class Efficiency:
    """Errors of local bases if the classifier is right and if it is wrong.

    Args:
        clusters: Number of clusters.
        global_error: Mean error of the global basis.
        right_error: Mean error on the basis of the sample's own cluster.
        wrong_error: Mean error on the basis of another cluster drawn at random.
    """

    clusters: int
    global_error: float
    right_error: float
    wrong_error: float

    def expected_error(self, accuracy: float) -> float:
        """Mean error of local bases if the classifier is right with this probability."""
        if not 0.0 <= accuracy <= 1.0:
            raise LocalBasesError(f"expected an accuracy in [0, 1], got {accuracy}")
        return accuracy * self.right_error + (1.0 - accuracy) * self.wrong_error

    @property
    def break_even(self) -> float:
        """Minimum accuracy at which local bases beat the global one; above 1 if they never do."""
        if self.wrong_error <= self.global_error:
            return 0.0
        if self.right_error >= self.wrong_error:
            return float("inf")
        return (self.wrong_error - self.global_error) / (self.wrong_error - self.right_error)


def efficiency_criterion(errors: Any, labels: Any, global_errors: Any) -> Efficiency:
    """Compare the gain of local bases with the cost of misclassification, before training.

    This is our own derivation from the idea in the paper's abstract (compare the gain of local
    bases with the cost of classification errors); the paper's formula could not be checked. All
    wrong clusters are assumed to be equally likely. With accuracy ``p`` the expected error is ``p *
    right + (1 - p) * wrong``; setting it equal to the error of the global basis gives the
    break-even accuracy.

    Args:
        errors: (n, k) error of every sample on every local basis.
        labels: (n,) the cluster that each sample belongs to.
        global_errors: (n,) error of every sample on the global basis.

    Returns:
        The three mean errors and derived quantities.

    Raises:
        LocalBasesError: If shapes do not match.
    """
    table = np.asarray(errors, dtype=np.float64)
    own = np.asarray(labels, dtype=np.int64)
    base = np.asarray(global_errors, dtype=np.float64)
    if table.ndim != 2 or own.shape != table.shape[:1] or base.shape != own.shape or own.size == 0:
        raise LocalBasesError(
            f"expected errors (n, k), labels (n,), global errors (n,), got {table.shape}, "
            f"{own.shape}, {base.shape}"
        )
    n, k = table.shape
    if bool(((own < 0) | (own >= k)).any()):
        raise LocalBasesError(f"expected labels in 0..{k - 1}")
    right = table[np.arange(n), own]
    # With one cluster no prediction can be wrong.
    wrong = right if k == 1 else (table.sum(axis=1) - right) / (k - 1)
    return Efficiency(k, float(base.mean()), float(right.mean()), float(wrong.mean()))


def choose_clusters(
    samples: Any,
    checks: Any,
    candidates: Iterable[int],
    accuracy: Callable[[int], float],
    **settings: Any,
) -> tuple[int, dict[int, Efficiency]]:
    """Number of clusters with minimal expected error for an assumed classifier accuracy.

    Args:
        samples: Training simulations.
        checks: Other simulations, for measuring errors.
        candidates: Numbers of clusters to try.
        accuracy: Maps a number of clusters to the expected accuracy of its classifier.
        **settings: Passed to :class:`LocalBases`.

    Returns:
        The best number of clusters and the criterion for every candidate.
    """
    found: dict[int, Efficiency] = {
        k: LocalBases(k, **settings).fit(samples).efficiency(checks) for k in candidates
    }
    if not found:
        raise LocalBasesError("expected at least one number of clusters to try")
    best: int = min(found, key=lambda k: found[k].expected_error(accuracy(k)))
    return best, found


def _default_classifier(seed: int) -> Classifier:
    from sklearn.ensemble import (  # pyright: ignore[reportMissingTypeStubs]
        RandomForestClassifier,
    )

    return cast(Classifier, RandomForestClassifier(n_estimators=200, random_state=seed))


def _as_inputs(inputs: Any, rows: int | None = None) -> Array:
    array = np.asarray(inputs, dtype=np.float64)
    if array.ndim != 2 or (rows is not None and array.shape[0] != rows):
        wanted = "n" if rows is None else str(rows)
        raise LocalBasesError(f"expected inputs of shape ({wanted}, p), got {array.shape}")
    return array


def _root_weights(weights: Sequence[float]) -> Array:
    array = np.asarray(weights, dtype=np.float64)
    if array.ndim != 1 or not bool((array > 0).all()):
        raise LocalBasesError("expected a vector of positive quadrature weights")
    return np.sqrt(array)

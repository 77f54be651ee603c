"""Scores of open triangles, and the precision of their ranking."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyorder_studies.benson2018simplicial.simplices import (
    Labels,
    ProjectedGraph,
    SimplexError,
    Triangles,
    closes,
    open_triangles,
    project,
)

Scores = NDArray[np.float64]
Score = Callable[[ProjectedGraph, Triangles], Scores]


def generalised_mean(weights: NDArray[np.float64], p: float) -> Scores:
    r"""Mean of order p of each row: :math:`(\frac13 \sum_i w_i^p)^{1/p}`.

    Args:
        weights: Positive tie weights, shape (T, 3).
        p: -inf is the minimum, -1 the harmonic, 0 the geometric, 1 the arithmetic mean, inf the
            maximum.

    Returns:
        One mean per row, shape (T,).

    Raises:
        SimplexError: If a weight is not positive.
    """
    if weights.size and float(weights.min()) <= 0:
        raise SimplexError("expected positive tie weights: only triangles have a mean of ties")
    if p == -math.inf:
        return weights.min(axis=1)
    if p == math.inf:
        return weights.max(axis=1)
    if p == 0:
        return np.exp(np.log(weights).mean(axis=1))
    return np.mean(weights**p, axis=1) ** (1.0 / p)


def mean_score(p: float) -> Score:
    """Return the score that is the mean of order ``p`` of the three tie weights."""
    return lambda graph, triangles: generalised_mean(graph.edge_weights(triangles), p)


def _shared(graph: ProjectedGraph, triangles: Triangles) -> list[tuple[set[int], ...]]:
    """Neighbour sets of the three nodes of each triangle."""
    neighbours = {node: set(found) for node, found in graph.weights.items()}
    return [(neighbours[a], neighbours[b], neighbours[c]) for a, b, c in triangles.tolist()]


def common_neighbours(graph: ProjectedGraph, triangles: Triangles) -> Scores:
    """Number of nodes tied to all three."""
    return np.array([len(a & b & c) for a, b, c in _shared(graph, triangles)], float)


def jaccard(graph: ProjectedGraph, triangles: Triangles) -> Scores:
    """Number of common neighbours of all three over neighbours of any."""
    return np.array([len(a & b & c) / len(a | b | c) for a, b, c in _shared(graph, triangles)])


def adamic_adar(graph: ProjectedGraph, triangles: Triangles) -> Scores:
    """Common neighbours, each weighted by one over the logarithm of its degree."""
    return np.array(
        [
            sum(1.0 / math.log(graph.degree(node)) for node in sorted(a & b & c))
            for a, b, c in _shared(graph, triangles)
        ],
        float,
    )


def degree_product(graph: ProjectedGraph, triangles: Triangles) -> Scores:
    """Product of the numbers of neighbours (preferential attachment)."""
    degrees = [[graph.degree(node) for node in row] for row in triangles.tolist()]
    return np.array(degrees, float).reshape(-1, 3).prod(axis=1)


def appearance_product(graph: ProjectedGraph, triangles: Triangles) -> Scores:
    """Product of the numbers of simplices in which the nodes appear."""
    counts = [[graph.appearances[node] for node in row] for row in triangles.tolist()]
    return np.array(counts, float).reshape(-1, 3).prod(axis=1)


def _matrix(graph: ProjectedGraph, weighted: bool) -> tuple[NDArray[np.float64], dict[int, int]]:
    places = {node: place for place, node in enumerate(sorted(graph.weights))}
    matrix = np.zeros((len(places), len(places)))
    for node, neighbours in graph.weights.items():
        for other, weight in neighbours.items():
            matrix[places[node], places[other]] = weight if weighted else 1.0
    return matrix, places


def _pair_sum(pairs: NDArray[np.float64], places: dict[int, int], triangles: Triangles) -> Scores:
    """Sum of a pairwise score over the six ordered pairs of each triangle."""
    rows = np.array([[places[node] for node in row] for row in triangles.tolist()], np.int64)
    a, b, c = rows.reshape(-1, 3).T
    both = pairs + pairs.T
    return both[a, b] + both[a, c] + both[b, c]


def katz(weighted: bool) -> Score:
    r"""Walks of all lengths: sum over pairs of :math:`(I - \beta W)^{-1} - I`.

    :math:`\beta = \min(1/4\sigma_1, 1/2)` with the largest singular value :math:`\sigma_1` of W.
    """

    def score(graph: ProjectedGraph, triangles: Triangles) -> Scores:
        matrix, places = _matrix(graph, weighted)
        largest = float(np.linalg.norm(matrix, 2))
        beta = min(0.25 / largest, 0.5)
        identity = np.eye(len(places))
        pairs = np.linalg.inv(identity - beta * matrix) - identity
        return _pair_sum(np.asarray(pairs, np.float64), places, triangles)

    return score


def pagerank(weighted: bool, alpha: float = 0.85) -> Score:
    r"""Personalised PageRank between the nodes: :math:`(1-\alpha)(I - \alpha W D^{-1})^{-1}`."""

    def score(graph: ProjectedGraph, triangles: Triangles) -> Scores:
        matrix, places = _matrix(graph, weighted)
        totals = matrix.sum(axis=0)
        walk = matrix / np.where(totals > 0, totals, 1.0)
        pairs = np.linalg.inv(np.eye(len(places)) - alpha * walk)
        return (1.0 - alpha) * _pair_sum(np.asarray(pairs, np.float64), places, triangles)

    return score


LOCAL: dict[str, Score] = {
    "harmonic mean": mean_score(-1.0),
    "geometric mean": mean_score(0.0),
    "arithmetic mean": mean_score(1.0),
    "common neighbours": common_neighbours,
    "Jaccard": jaccard,
    "Adamic-Adar": adamic_adar,
    "degree product": degree_product,
    "appearance product": appearance_product,
}
WALKS: dict[str, Score] = {
    "Katz": katz(weighted=False),
    "weighted Katz": katz(weighted=True),
    "PageRank": pagerank(weighted=False),
    "weighted PageRank": pagerank(weighted=True),
}


def features(graph: ProjectedGraph, triangles: Triangles) -> NDArray[np.float64]:
    """Local features of each triangle for a supervised score, shape (T, 26).

    Tie weights, degrees, appearances, common neighbours of each pair and of all three, and the
    logarithms of all of these (of one plus the count for common neighbours).
    """
    rows: list[list[float]] = []
    ties = graph.edge_weights(triangles)
    for row, weights, (a, b, c) in zip(
        triangles.tolist(), ties.tolist(), _shared(graph, triangles), strict=True
    ):
        positive = [
            *weights,
            *(graph.degree(node) for node in row),
            *(graph.appearances[node] for node in row),
        ]
        shared = [len(a & b), len(a & c), len(b & c), len(a & b & c)]
        rows.append([*positive, *shared, *map(math.log, positive), *map(math.log1p, shared)])
    return np.array(rows, float).reshape(-1, 26)


def supervised(
    earlier: Sequence[frozenset[int]],
    later: Sequence[frozenset[int]],
    past: Sequence[frozenset[int]],
    triangles: Triangles,
) -> Scores:
    """Probability of closing by logistic regression, learned on an earlier part of the data.

    Args:
        earlier: Simplices of the training past.
        later: Simplices of the training future, which label the training triangles.
        past: Simplices up to the time of the prediction.
        triangles: Open triangles to score.

    Returns:
        One probability per triangle. Features are standardised first, unlike in the paper.

    Raises:
        SimplexError: If all or none of the training triangles close.
    """
    known = open_triangles(earlier)
    labels = closes(known, later)
    if not 0 < int(labels.sum()) < labels.size:
        raise SimplexError(
            f"expected training triangles of both kinds, got {int(labels.sum())} that close of "
            f"{labels.size}"
        )
    train = features(project(earlier), known)
    centre, spread = train.mean(axis=0), train.std(axis=0)
    spread[spread == 0] = 1.0
    model: Any = import_module("sklearn.linear_model").LogisticRegression(max_iter=5000)
    model.fit((train - centre) / spread, labels)
    asked = (features(project(past), triangles) - centre) / spread
    return np.asarray(model.predict_proba(asked)[:, 1], np.float64)


def average_precision(
    labels: Labels, scores: Scores, weights: NDArray[np.float64] | None = None
) -> float:
    r"""Area under the precision-recall curve as :math:`\sum_k (R_k - R_{k-1}) P_k`.

    Triangles with equal scores are counted together, so their order does not matter.

    Args:
        labels: Whether each triangle closes, shape (T,).
        scores: Its score, shape (T,); higher means more likely.
        weights: Multiplicity of each triangle (default: 1).

    Raises:
        SimplexError: If the shapes differ, a score is not finite or nothing (that counts) closes.
    """
    count = np.ones(labels.size) if weights is None else weights
    if not labels.shape == scores.shape == count.shape:
        raise SimplexError(
            f"expected labels, scores and weights of one shape, got {labels.shape}, "
            f"{scores.shape} and {count.shape}"
        )
    if not bool(np.isfinite(scores).all()):
        raise SimplexError("expected finite scores")
    positive = float((labels * count).sum())
    if positive <= 0:
        raise SimplexError("no triangle closes: precision and recall are undefined")
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = np.cumsum((labels * count)[order])[last]
    seen = np.cumsum(count[order])[last]
    precision = hits / np.where(seen > 0, seen, 1.0)
    return float((np.diff(hits / positive, prepend=0.0) * precision).sum())


def relative_precision(
    labels: Labels, scores: Scores, weights: NDArray[np.float64] | None = None
) -> float:
    """Average precision over the fraction of triangles that close: 1 is chance level."""
    count = np.ones(labels.size) if weights is None else weights
    base = float((labels * count).sum() / count.sum())
    return average_precision(labels, scores, weights) / base if base else math.nan


def closure_scores(past: Sequence[frozenset[int]], triangles: Triangles) -> dict[str, Scores]:
    """All unsupervised scores of the open triangles, by name."""
    graph = project(past)
    return {name: score(graph, triangles) for name, score in {**LOCAL, **WALKS}.items()}

from __future__ import annotations

import math
from itertools import combinations, pairwise, permutations
from statistics import fmean, geometric_mean, harmonic_mean

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from anyorder_studies.benson2018simplicial.scores import (
    LOCAL,
    WALKS,
    average_precision,
    closure_scores,
    features,
    generalised_mean,
    relative_precision,
    supervised,
)
from anyorder_studies.benson2018simplicial.simplices import (
    SimplexError,
    closes,
    open_triangles,
    project,
)

RING = [frozenset(s) for s in ({1, 2}, {2, 3}, {1, 3}, {1, 2}, {1, 4}, {2, 4}, {3, 4}, {4, 5, 6})]


def random_sets(seed: int, number: int = 120, nodes: int = 25) -> list[frozenset[int]]:
    rng = np.random.default_rng(seed)
    sizes = rng.choice([2, 2, 2, 3], number)
    return [frozenset(rng.choice(nodes, size, replace=False).tolist()) for size in sizes]


@given(st.lists(st.tuples(*[st.floats(0.1, 1e3)] * 3), min_size=1, max_size=5))
def test_means_are_the_textbook_ones(rows: list[tuple[float, float, float]]) -> None:
    weights = np.array(rows)
    for p, mean in ((-1.0, harmonic_mean), (0.0, geometric_mean), (1.0, fmean)):
        assert generalised_mean(weights, p) == pytest.approx([mean(row) for row in rows])
    assert generalised_mean(weights, -math.inf) == pytest.approx([min(row) for row in rows])
    assert generalised_mean(weights, math.inf) == pytest.approx([max(row) for row in rows])
    ordered = [generalised_mean(weights, p) for p in (-math.inf, -3, -1, 0, 0.5, 1, 4, math.inf)]
    for lower, upper in pairwise(ordered):
        assert bool((lower <= upper * (1 + 1e-9)).all())


def test_a_missing_tie_has_no_mean() -> None:
    with pytest.raises(SimplexError, match="positive tie weights"):
        generalised_mean(np.array([[0.0, 1.0, 1.0]]), -1.0)


def test_local_scores_of_a_known_case() -> None:
    # 1, 2, 3, 4 are all tied in pairs (1-2 twice); 4 is also tied to 5 and 6.
    triangles = open_triangles(RING)
    assert triangles.tolist() == [[1, 2, 3], [1, 2, 4], [1, 3, 4], [2, 3, 4]]
    scores = closure_scores(RING, triangles)
    assert scores["common neighbours"].tolist() == [1, 1, 1, 1]
    assert scores["arithmetic mean"] == pytest.approx([4 / 3, 4 / 3, 1, 1])
    assert scores["harmonic mean"] == pytest.approx([1.2, 1.2, 1, 1])
    assert scores["Adamic-Adar"] == pytest.approx([1 / math.log(5), *[1 / math.log(3)] * 3])
    assert scores["Jaccard"] == pytest.approx([1 / 4, 1 / 6, 1 / 6, 1 / 6])
    assert scores["degree product"].tolist() == [27, 45, 45, 45]
    assert scores["appearance product"].tolist() == [4 * 4 * 3, 4 * 4 * 4, 4 * 3 * 4, 4 * 3 * 4]
    assert set(scores) == {*LOCAL, *WALKS}


@pytest.mark.parametrize("weighted", [False, True])
def test_walk_scores_are_their_series(weighted: bool) -> None:
    past = random_sets(1)
    graph, triangles = project(past), open_triangles(past)
    nodes = sorted(graph.weights)
    matrix = np.zeros((len(nodes), len(nodes)))
    for (i, a), (j, b) in permutations(enumerate(nodes), 2):
        weight = graph.weights[a].get(b, 0)
        matrix[i, j] = weight if weighted else min(weight, 1)
    prefix = "weighted " if weighted else ""

    def pair_sum(pairs: np.ndarray) -> list[float]:
        return [
            sum(pairs[nodes.index(a), nodes.index(b)] for a, b in permutations(row, 2))
            for row in triangles.tolist()
        ]

    beta = 0.25 / np.linalg.svd(matrix, compute_uv=False)[0]
    power, walks = np.eye(len(nodes)), np.zeros_like(matrix)
    for _ in range(60):
        power = beta * power @ matrix
        walks += power
    found = WALKS[f"{prefix}Katz"](graph, triangles)
    assert found == pytest.approx(pair_sum(walks))

    rank = np.eye(len(nodes))
    for _ in range(400):
        rank = 0.15 * np.eye(len(nodes)) + 0.85 * (matrix / matrix.sum(axis=0)) @ rank
    found = WALKS[f"{prefix}PageRank"](graph, triangles)
    assert found == pytest.approx(pair_sum(rank))


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=40
    )
)
def test_average_precision_is_that_of_scikit_learn(rows: list[tuple[bool, int, int]]) -> None:
    labels = np.array([row[0] for row in rows])
    scores = np.array([float(row[1]) for row in rows])
    weights = np.array([float(row[2]) for row in rows])
    assume((labels * weights).sum() > 0)
    assert average_precision(labels, scores) == pytest.approx(
        average_precision_score(labels, scores)
    )
    counted = weights > 0
    assert average_precision(labels, scores, weights) == pytest.approx(
        average_precision_score(labels[counted], scores[counted], sample_weight=weights[counted])
    )


def test_chance_is_one() -> None:
    labels = np.array([True, False, False, True, False])
    assert relative_precision(labels, np.zeros(5)) == pytest.approx(1.0)
    assert relative_precision(labels, labels.astype(float)) == pytest.approx(2.5)


def test_bad_scores_are_refused() -> None:
    labels = np.array([True, False])
    with pytest.raises(SimplexError, match="one shape"):
        average_precision(labels, np.zeros(3))
    with pytest.raises(SimplexError, match="finite scores"):
        average_precision(labels, np.array([1.0, np.nan]))
    with pytest.raises(SimplexError, match="no triangle closes"):
        average_precision(np.array([False, False]), np.zeros(2))


def test_features_are_named_quantities() -> None:
    graph, triangles = project(RING), open_triangles(RING)
    row = features(graph, triangles)[0]
    assert row[:3].tolist() == [2, 1, 1]  # ties 1-2, 1-3, 2-3
    assert row[3:6].tolist() == [3, 3, 3]  # neighbours
    assert row[6:9].tolist() == [4, 4, 3]  # appearances
    assert row[9:13].tolist() == [2, 2, 2, 1]  # common neighbours of pairs, of all
    assert row[13:22] == pytest.approx(np.log(row[:9]))
    assert row[22:] == pytest.approx(np.log1p(row[9:13]))


def test_learning_finds_a_planted_rule() -> None:
    # Triangles close exactly if their weakest tie was used at least three times.
    rng = np.random.default_rng(5)
    parts: list[tuple[list[frozenset[int]], list[frozenset[int]]]] = []
    for _ in range(2):
        past: list[frozenset[int]] = []
        future: list[frozenset[int]] = []
        for start in range(0, 300, 3):
            ties = rng.integers(1, 6, 3)
            for pair, count in zip(combinations(range(start, start + 3), 2), ties, strict=True):
                past += [frozenset(pair)] * int(count)
            if ties.min() >= 3:
                future.append(frozenset(range(start, start + 3)))
        parts.append((past, future))
    (earlier, later), (past, future) = parts
    triangles = open_triangles(past)
    labels = closes(triangles, future)
    learned = relative_precision(labels, supervised(earlier, later, past, triangles))
    assert learned > 0.8 / labels.mean()
    with pytest.raises(SimplexError, match="of both kinds"):
        supervised(earlier, [], past, triangles)

from __future__ import annotations

import numpy as np
import pytest

from anyorder_studies.benson2018simplicial.scores import mean_score, relative_precision
from anyorder_studies.benson2018simplicial.simplices import (
    ProjectedGraph,
    TemporalSimplices,
    closes,
    closure_counts,
    open_triangles,
    project,
)
from anyorder_studies.benson2018simplicial.study import (
    DATA,
    SimplicialClosure,
    published_labels,
    tie_counts,
)
from anyorder_studies.data import data_folder, missing_data

needs_data = pytest.mark.skipif(missing_data([DATA]) is not None, reason=str(missing_data([DATA])))


def enron() -> TemporalSimplices:
    return TemporalSimplices.read(data_folder(DATA), "email-Enron")


@needs_data
def test_all_closure_counts_are_the_published_ones() -> None:
    # ScHoLP-Tutorial, output/3-node-closures/email-Enron-3-node-closures.txt
    assert closure_counts(*enron().split(0.8)) == {
        (0, 0, 0): (265772, 90),
        (0, 0, 1): (40734, 78),
        (0, 0, 2): (109207, 334),
        (0, 1, 1): (2025, 19),
        (0, 1, 2): (10669, 132),
        (0, 2, 2): (11082, 236),
        (1, 1, 1): (75, 0),
        (1, 1, 2): (449, 14),
        (1, 2, 2): (1162, 56),
        (2, 2, 2): (888, 49),
    }


@needs_data
def test_the_published_accuracies_come_from_labels_that_miss_closures() -> None:
    past, future = enron().split(0.8)
    graph, triangles = project(past), open_triangles(past)
    labels = closes(triangles, future)
    missed = published_labels(graph, triangles, labels)
    assert (len(labels), labels.sum(), missed.sum()) == (2574, 119, 36)
    # ScHoLP-Tutorial, output/generalized-means/email-Enron: p from -inf over -4 ... 4 to inf.
    orders = [-np.inf, *np.arange(-4.0, 4.25, 0.25), np.inf]
    published = [
        1.591, 1.754, 1.761, 1.764, 1.775, 1.776, 1.775, 1.777, 1.783, 1.786, 1.791, 1.8,
        1.788, 1.784, 1.808, 1.79, 1.728, 1.621, 1.468, 1.444, 1.378, 1.333, 1.33, 1.325,
        1.317, 1.317, 1.313, 1.311, 1.311, 1.312, 1.313, 1.312, 1.313, 1.314, 1.351,
    ]  # fmt: skip
    all_scores = [mean_score(float(p))(graph, triangles) for p in orders]
    again = [relative_precision(missed, scores) for scores in all_scores]
    assert again == pytest.approx(published, abs=0.0025)
    right = [relative_precision(labels, scores) for scores in all_scores]
    assert max(right) < 1.41


def test_published_labels_need_the_first_node_to_be_the_lowest() -> None:
    weights = {0: {1: 1, 2: 1, 3: 1}, 1: {0: 1, 2: 1}, 2: {0: 1, 1: 1}, 3: {0: 1}}
    graph = ProjectedGraph(weights, dict.fromkeys(weights, 1))
    triangles, labels = np.array([[0, 1, 2]]), np.array([True])
    # Node 1 has the lowest degree (ties go to the lower number), so the look-up fails.
    assert published_labels(graph, triangles, labels).tolist() == [False]
    weights[1][9] = weights[2][9] = 1
    even = ProjectedGraph(weights, dict.fromkeys(weights, 1))
    assert published_labels(even, triangles, labels).tolist() == [True]
    assert published_labels(even, triangles, ~labels).tolist() == [False]


def test_somebody_new_is_not_taken_for_an_old_triple() -> None:
    past = [frozenset(pair) for pair in ((0, 1), (1, 2), (0, 2))]
    for newcomer in range(3, 40):
        counts = tie_counts(past, [frozenset({0, 1, newcomer})], [0, 1, 2])
        assert counts["3 ties"] == [[1, 0, 0, 0], [0, 0, 0, 0]]
    counts = tie_counts(past, [frozenset({0, 1, 2, 9})], [0, 1, 2])
    assert counts["3 ties"] == [[1, 0, 0, 0], [1, 0, 0, 0]]


@needs_data
def test_leaving_somebody_out_changes_what_they_took_part_in() -> None:
    study = SimplicialClosure()
    ties = study.run({"score": "ties"})
    assert ties["3 ties"][0][0] == 2574
    assert ties["3 ties"][1][0] == 119
    past, _ = enron().split(0.8)
    people = sorted({node for simplex in past for node in simplex})
    for group in ties.values():
        for counts in group:
            # Each triple has three people, so all the differences together count it three times.
            assert sum(counts[0] - n for n in counts[1:]) == 3 * counts[0]
    harmonic = study.run({"score": "harmonic mean"})
    assert len(harmonic["left_out"]) == len(people)
    triangles = open_triangles(past)
    without = triangles[(triangles != people[7]).all(axis=1)]
    labels = closes(without, enron().split(0.8)[1])
    scores = mean_score(-1.0)(project(past), without)
    assert harmonic["left_out"][7] == pytest.approx(relative_precision(labels, scores))

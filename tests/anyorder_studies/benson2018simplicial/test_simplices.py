from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyorder_studies.benson2018simplicial.simplices import (
    SimplexError,
    TemporalSimplices,
    closes,
    closure_counts,
    open_triangles,
    project,
    strength,
)

SETS = st.lists(st.frozensets(st.integers(0, 7), min_size=1, max_size=4), min_size=1, max_size=14)


def together(simplices: list[frozenset[int]], nodes: tuple[int, ...]) -> int:
    """Naive count of the simplices that hold all the nodes."""
    return sum(set(nodes) <= simplex for simplex in simplices)


def naive_open(simplices: list[frozenset[int]]) -> list[list[int]]:
    nodes = sorted(set().union(*simplices))
    return [
        list(triple)
        for triple in combinations(nodes, 3)
        if all(together(simplices, pair) for pair in combinations(triple, 2))
        and not together(simplices, triple)
    ]


@given(SETS)
def test_open_triangles_are_the_naive_ones(simplices: list[frozenset[int]]) -> None:
    assert open_triangles(simplices).tolist() == naive_open(simplices)


@given(SETS)
def test_weights_are_the_naive_ones(simplices: list[frozenset[int]]) -> None:
    graph = project(simplices)
    for a, b in combinations(range(8), 2):
        weight = graph.weights.get(a, {}).get(b, 0)
        assert weight == graph.weights.get(b, {}).get(a, 0) == together(simplices, (a, b))
    for node, count in graph.appearances.items():
        assert count == together(simplices, (node,))


@given(SETS, SETS)
def test_closure_counts_are_the_naive_ones(
    past: list[frozenset[int]], future: list[frozenset[int]]
) -> None:
    expected = {(a, b, c): [0, 0] for a in range(3) for b in range(a, 3) for c in range(b, 3)}
    for triple in combinations(sorted(set().union(*past)), 3):
        if together(past, triple):
            continue
        a, b, c = sorted(strength(together(past, pair)) for pair in combinations(triple, 2))
        expected[a, b, c][0] += 1
        expected[a, b, c][1] += together(future, triple) > 0
    assert closure_counts(past, future) == {kind: tuple(n) for kind, n in expected.items()}


def test_a_known_case() -> None:
    past = [frozenset(s) for s in ({1, 2}, {2, 3}, {1, 3}, {1, 2}, {3, 4, 5}, {6})]
    assert open_triangles(past).tolist() == [[1, 2, 3]]
    assert closes(open_triangles(past), [frozenset({1, 2, 3, 9})]).tolist() == [True]
    assert closes(open_triangles(past), [frozenset({1, 2}), frozenset({3})]).tolist() == [False]
    counts = closure_counts(past, [frozenset({1, 2, 3})])
    assert counts[1, 1, 2] == (1, 1)
    assert counts[1, 1, 1] == (0, 0)  # 3, 4, 5 met all together: not open
    assert sum(n for n, _ in counts.values()) == 19  # of 20 triples of six nodes


def test_the_split_is_by_time_not_by_position() -> None:
    data = TemporalSimplices.of([({1}, 30), ({2}, 10), ({3}, 20), ({4}, 40), ({5}, 50)])
    past, future = data.split(0.5)
    assert [set(s) for s in past] == [{1}, {2}, {3}]
    assert [set(s) for s in future] == [{4}, {5}]
    assert [set(s) for s in data.split(0.25, 0.5)[1]] == [{1}]


def test_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "x-nverts.txt").write_text("2\n1\n3\n")
    (tmp_path / "x-simplices.txt").write_text("1\n2\n5\n3\n3\n4\n")
    (tmp_path / "x-times.txt").write_text("10\n11\n12\n")
    data = TemporalSimplices.read(tmp_path, "x")
    assert data.simplices == (frozenset({1, 2}), frozenset({5}), frozenset({3, 4}))
    assert data.times == (10, 11, 12)
    (tmp_path / "x-nverts.txt").write_text("2\n1\n2\n")
    with pytest.raises(SimplexError, match="sizes sum to 5, but there are 6 nodes"):
        TemporalSimplices.read(tmp_path, "x")
    with pytest.raises(SimplexError, match="three files of data set 'y'"):
        TemporalSimplices.read(tmp_path, "y")


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([], "at least one simplex"),
        ([(set(), 1)], "non-empty set"),
        ([({-1, 2}, 1)], "non-negative"),
    ],
)
def test_what_has_no_meaning_is_refused(events: list[tuple[set[int], int]], message: str) -> None:
    with pytest.raises(SimplexError, match=message):
        TemporalSimplices.of(events)


def test_lengths_and_quantiles_are_checked() -> None:
    with pytest.raises(SimplexError, match="one time per simplex"):
        TemporalSimplices((frozenset({1}),), (1, 2))
    data = TemporalSimplices.of([({1}, 1), ({2}, 2)])
    for begin, end in ((0.0, 1.0), (0.5, 0.5), (0.8, 1.2)):
        with pytest.raises(SimplexError, match="0 < begin < end <= 1"):
            data.split(begin, end)


def test_no_triangle_is_an_empty_table() -> None:
    assert open_triangles([frozenset({1, 2})]).shape == (0, 3)
    assert closes(open_triangles([frozenset({1, 2})]), []).shape == (0,)

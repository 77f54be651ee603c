"""NDCG against values worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyorder_papers.ranking import Query, mean_ndcg, ndcg, read_queries


def test_by_hand() -> None:
    grades = {1: 3, 2: 2, 3: 1}
    ideal = 7 + 3 / math.log2(3) + 1 / 2
    assert ndcg([1, 2, 3], grades) == pytest.approx(1.0)
    assert ndcg([2, 9, 1], grades) == pytest.approx((3 + 7 / 2) / ideal)
    assert ndcg([9, 8], grades) == 0.0
    assert ndcg([], grades) == 0.0


def test_only_the_first_count() -> None:
    assert ndcg([9, 8, 7, 6, 5, 1], {1: 3}) == 0.0
    assert ndcg([9, 1], {1: 3}, depth=1) == 0.0
    many = dict.fromkeys(range(10), 2)
    assert ndcg([0, 1, 2, 3, 4], many) == pytest.approx(1.0)


@given(st.permutations(range(6)), st.dictionaries(st.integers(0, 5), st.integers(1, 3), min_size=1))
def test_between_zero_and_one_and_best_when_sorted(
    order: list[int], grades: dict[int, int]
) -> None:
    best = sorted(order, key=lambda item: -grades.get(item, 0))
    assert 0.0 <= ndcg(order, grades) <= ndcg(best, grades) + 1e-12
    assert ndcg(best, grades) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("ranked", "grades", "depth", "message"),
    [
        ([1], {}, 5, "at least one item"),
        ([1], {1: 0}, 5, "at least one item"),
        ([1, 1], {1: 1}, 5, "without repeated items"),
        ([1], {1: 1}, 0, "depth of 1"),
    ],
)
def test_what_has_no_value(
    ranked: list[int], grades: dict[int, int], depth: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ndcg(ranked, grades, depth)


def test_mean_over_questions(tmp_path: Path) -> None:
    path = tmp_path / "q.toml"
    path.write_text(
        '[[query]]\ntext = "a"\nheld_out = true\nexpected = { 4 = 3 }\n'
        '[[query]]\ntext = "b"\nheld_out = false\nexpected = { 5 = 1 }\n',
        encoding="utf-8",
    )
    queries = read_queries(path)
    assert queries[0] == Query("a", {4: 3}, held_out=True)
    assert mean_ndcg(queries, lambda text: [4]) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="at least one"):
        mean_ndcg([], lambda text: [])

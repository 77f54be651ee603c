"""Rankings from comparisons of two: order, ties, counts, judges who err."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from anyorder import minimize
from anyorder.judging import JudgeError, PairwiseRanker
from anyorder.methods.rank_sgd import RankSGD


def smaller(first: float, second: float) -> float:
    return second - first


@given(st.lists(st.integers(0, 8), min_size=1, max_size=14), st.integers(0, 15))
def test_a_judge_who_never_errs_gives_the_best_few_with_their_ties(
    heights: list[int], top: int
) -> None:
    ranker = PairwiseRanker[float](smaller, top=top)
    found = ranker(heights)
    levels = sorted(set(heights))
    everything = [[i for i, h in enumerate(heights) if h == level] for level in levels]
    wanted, ranked = [], 0
    for group in everything:
        if ranked < (top or len(heights)):
            wanted.append(group)
        ranked += len(group)
    assert found == wanted
    places = min(top or len(heights), len(heights))
    most = sum(math.ceil(math.log2(min(i, places) + 1)) for i in range(1, len(heights)))
    assert ranker.comparisons <= most


@pytest.mark.parametrize(("n", "top", "most"), [(10, 0, 25), (10, 1, 9), (5, 0, 8), (4, 2, 5)])
def test_comparisons_have_a_known_bound_that_is_reached(n: int, top: int, most: int) -> None:
    found: list[int] = []
    for seed in range(200):
        ranker = PairwiseRanker[float](smaller, top=top)
        order = random.Random(seed).sample(range(n), n)
        assert ranker(order)[0] == [order.index(0)]
        found.append(ranker.comparisons)
    assert max(found) == most


@pytest.mark.parametrize(
    ("first", "second", "tie"), [(True, False, None), (2.5, -0.1, 0), (math.inf, -math.inf, 0.0)]
)
def test_truth_numbers_and_nothing_are_comparisons(first: Any, second: Any, tie: Any) -> None:
    def judge(a: int, b: int) -> Any:
        return tie if a == b else first if a < b else second

    assert PairwiseRanker[int](judge)([2, 1, 2]) == [[1], [0, 2]]


@pytest.mark.parametrize("answer", ["first", math.nan, [1, 2]])
def test_what_is_no_comparison_is_refused(answer: Any) -> None:
    with pytest.raises(JudgeError, match="expected the judge to return True"):
        PairwiseRanker[int](lambda a, b: answer)([1, 2])


def test_repetitions_outvote_a_judge_who_favours_the_first() -> None:
    shown: list[tuple[int, int]] = []

    def judge(a: int, b: int) -> bool:
        shown.append((a, b))
        return b - a > -2  # the second has to be better by two

    once = PairwiseRanker[int](judge)
    assert once([0, 1]) == [[1], [0]]  # the one that is inserted stands first
    shown.clear()
    twice = PairwiseRanker[int](judge, repeats=2)
    assert twice([1, 0]) == [[0, 1]]  # each wins when it stands first: a tie
    assert shown == [(0, 1), (1, 0)] and twice.comparisons == 2
    assert twice([3, 0]) == [[1], [0]]


def test_a_certain_majority_ends_the_repetitions() -> None:
    ranker = PairwiseRanker[int](smaller, repeats=5)
    ranker([1, 2])
    assert ranker.comparisons == 3


def test_more_repetitions_err_less() -> None:
    def errors(repeats: int) -> int:
        rng = random.Random(0)

        def judge(a: int, b: int) -> bool:
            return (a < b) == (rng.random() < 0.75)

        ranker = PairwiseRanker[int](judge, repeats=repeats, top=1)
        return sum(ranker([1, 0]) != [[1]] for _ in range(300))

    assert errors(9) < 0.5 * errors(1)  # 0.05 against 0.25 in the limit


def test_judges_without_consistency_come_to_an_end() -> None:
    """Stone, paper, scissors: no order exists, and one is returned all the same."""
    found = PairwiseRanker[int](lambda a, b: (b - a) % 3 == 1)([0, 1, 2])
    assert sorted(itertools.chain(*found)) == [0, 1, 2]


@pytest.mark.parametrize("wrong", [{"top": -1}, {"repeats": 0}])
def test_settings_out_of_range_are_named(wrong: dict[str, int]) -> None:
    with pytest.raises(JudgeError, match=next(iter(wrong))):
        PairwiseRanker[int](smaller, **wrong)


def test_minimize_takes_a_judge_of_pairs() -> None:
    def never(x: Any) -> float:
        raise AssertionError("the judge answers")

    ranker = PairwiseRanker[Any](lambda a, b: float((b**2).sum() - (a**2).sum()))
    found = minimize(
        never, np.ones(3), method="rank_sgd", ranker=ranker, lr=0.5, points=5, budget="60rankings"
    )
    assert (found.x**2).sum() < 0.3 and ranker.comparisons > 60


def test_a_judge_of_pairs_makes_the_same_run_as_values() -> None:
    ends: list[torch.Tensor] = []
    for judged in (False, True):
        x = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))

        def height(x: torch.Tensor = x) -> torch.Tensor:
            return (x * x).sum()

        def show(shift: Any) -> float:
            with optimizer.shown(shift):  # noqa: B023 - used within the loop
                return height().item()

        ranker = PairwiseRanker[Any](smaller, show=show) if judged else None
        optimizer = RankSGD([x], points=5, line_search=3, lr=1.0, ranker=ranker, engine="eager")
        for _ in range(8):
            optimizer.step(height)
        ends.append(x.detach().clone())
        assert ranker is None or 8 * (4 + 4) <= ranker.comparisons <= 8 * (8 + 8)
    assert torch.equal(*ends)

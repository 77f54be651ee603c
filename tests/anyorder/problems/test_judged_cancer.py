"""The judge: exact without errors, wrong as often as its options say, and repeatable."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from anyorder.problems import ProblemError, load
from anyorder.problems.judged_cancer import JudgedCancer

LOSSES = torch.tensor([0.3, 0.1, 0.4, 0.2])


def rankings(problem: JudgedCancer, losses: torch.Tensor, count: int) -> list[list[int]]:
    return [problem.judge(losses, seed=0, step=i, question=0) for i in range(count)]


def test_without_errors_the_order_is_that_of_the_losses() -> None:
    exact = JudgedCancer(temperature=0, slips=0)
    assert exact.judge(LOSSES, seed=0, step=0, question=0) == [1, 3, 0, 2]
    assert exact.judge(torch.tensor([math.nan, 2.0, 1.0]), seed=0, step=0, question=0) == [2, 1, 0]


def test_a_ranking_is_a_function_of_seed_step_and_question() -> None:
    problem = JudgedCancer(temperature=1.0)
    losses = torch.zeros(12)
    keys = list(itertools.product((0, 1), repeat=3))
    found = [problem.judge(losses, seed=a, step=b, question=c) for a, b, c in keys]
    assert found == [problem.judge(losses, seed=a, step=b, question=c) for a, b, c in keys]
    assert len({tuple(each) for each in found}) == len(keys)
    assert all(sorted(each) == list(range(12)) for each in found)


@pytest.mark.parametrize("gap", [0.0, 0.5, 2.0])
def test_noise_follows_bradley_and_terry(gap: float) -> None:
    """2,000 pairs; four standard deviations are 0.045."""
    problem = JudgedCancer(temperature=0.1, slips=0)
    found = rankings(problem, torch.tensor([0.1 * gap, 0.0]), 2000)
    share = sum(each == [1, 0] for each in found) / len(found)
    assert share == pytest.approx(1 / (1 + math.exp(-gap)), abs=0.045)


def test_the_best_of_several_follows_plackett_and_luce() -> None:
    problem = JudgedCancer(temperature=1.0, slips=0)
    found = rankings(problem, torch.tensor([0.0, 1.0, 2.0]), 2000)
    share = sum(each[0] == 0 for each in found) / len(found)
    assert share == pytest.approx(1 / (1 + math.exp(-1) + math.exp(-2)), abs=0.045)


def test_slips_favour_the_model_shown_first() -> None:
    problem = JudgedCancer(temperature=0, slips=0.3)
    assert rankings(problem, torch.tensor([0.0, 1.0]), 50) == [[0, 1]] * 50
    found = rankings(problem, torch.tensor([1.0, 0.0]), 2000)
    assert sum(each == [0, 1] for each in found) / 2000 == pytest.approx(0.3, abs=0.045)


def test_comparisons_contradict_each_other() -> None:
    """The third, best model stops behind the first although it would beat it."""
    problem = JudgedCancer(temperature=0, slips=0.3)
    found = rankings(problem, torch.tensor([1.0, 2.0, 0.0]), 200)
    assert [0, 2, 1] in found


def test_the_rest_is_the_problem_without_a_judge() -> None:
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    judged, plain = load("judged-cancer"), load("cancer")
    assert judged.judged and not plain.judged
    model = plain.build(3)
    assert judged.evaluate(model) == plain.evaluate(model)
    assert judged.test(model) == plain.test(model)


@pytest.mark.parametrize("options", [{"temperature": -1.0}, {"slips": 1.0}, {"slips": -0.1}])
def test_wrong_options(options: dict[str, float]) -> None:
    with pytest.raises(ProblemError, match=next(iter(options))):
        JudgedCancer(**options)

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from anyorder import SGD  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
from anyorder.compare.plan.seeds import trial_seed
from anyorder.problems import load
from anyorder_studies.contest import (
    WORST,
    Repetitions,
    all_digits,
    choose,
    descend,
    digits_training_loss,
    tuned_seeds,
    tuning_of,
    tuning_seeds,
)
from anyorder_studies.study import StudyError


def test_the_lowest_mean_score_over_tuning_seeds_wins() -> None:
    asked: list[tuple[str, int]] = []

    def score(setting: str, seed: int) -> float:
        asked.append((setting, seed))
        return {"a": [1.0, 5.0], "b": [2.0, 2.0], "c": [2.0, 2.0]}[setting][seed % 2]

    assert choose(["a", "b", "c"], score, 2) == "b"
    assert sorted(asked) == [(setting, seed) for setting in "abc" for seed in tuning_seeds(2)]
    asked.clear()
    choose(["a"], score, 2, tuning=3)
    assert [seed for _, seed in asked] == tuning_seeds(2, 3)


def test_seeds_are_those_of_comparisons() -> None:
    reported = tuned_seeds({"tunings": 2, "seeds": 3})
    assert reported == [0, 1, 2, 10_000, 10_001, 10_002]
    assert [tuning_of(seed) for seed in reported] == [0, 0, 0, 1, 1, 1]
    assert tuned_seeds({"seeds": 2}) == [0, 1]
    assert tuning_seeds(2) == [trial_seed("", 0), trial_seed("", 0) + 1]
    assert all(tuning_of(seed) == 4 for seed in tuning_seeds(3, 4))


def test_tunings_are_the_repetitions_if_there_are_several() -> None:
    two = Repetitions([0, 1, 10_000, 10_001])
    assert two.values([1.0, 3.0, 5.0, 7.0]) == [2.0, 6.0]
    assert two.mean([1.0, 3.0, 5.0, 7.0]).n == 2
    assert two.ratio([2.0, 8.0, 1.0, 4.0], [1.0] * 4).value == pytest.approx(8**0.5)
    one = Repetitions([10_000, 10_001, 10_002])
    assert one.ratio([2.0, 4.0, 8.0], [1.0] * 3).value == pytest.approx(4.0)
    assert one.ratio([2.0, 4.0, 8.0], [1.0] * 3).n == 3


def test_only_the_best_with_the_first_seed_are_tried_with_the_others() -> None:
    asked: list[tuple[str, int]] = []

    def score(setting: str, seed: int) -> float:
        asked.append((setting, seed))
        return {"a": [3.0, 0.0], "b": [1.0, 9.0], "c": [2.0, 3.0]}[setting][seed % 2]

    assert choose(["a", "b", "c"], score, 2, finalists=2) == "c"
    later = [setting for setting, seed in asked if seed != tuning_seeds(1)[0]]
    assert later == ["b", "c"] and len(asked) == 5


def test_diverged_settings_lose_and_cannot_all_diverge() -> None:
    assert choose([1.0, 2.0], lambda x, _: math.nan if x == 1.0 else 9.0, 1) == 2.0
    with pytest.raises(StudyError, match=r"no setting of \[1, 2\] had finite scores"):
        choose([1, 2], lambda x, _: math.inf, 1)
    with pytest.raises(StudyError, match="got 0 and 1"):
        choose([], lambda x, _: 0.0, 1)
    with pytest.raises(StudyError, match="got 1 and 0"):
        choose([1], lambda x, _: 0.0, 0)


@pytest.mark.parametrize("cosine", [True, False])
def test_descent_follows_the_schedule_and_tells_of_every_step(cosine: bool) -> None:
    problem = load("quadratic", dim=3)
    model = problem.build(0)
    optimizer = SGD(model, lr=0.5, engine="eager")
    used: list[float] = []
    told: list[int] = []

    def after(step: int) -> None:
        told.append(step)
        used.append(optimizer.param_groups[0]["lr"])

    assert descend(problem, model, optimizer, steps=4, seed=0, cosine=cosine, after=after)
    shares = [0.5 * (1 + math.cos(math.pi * k / 4)) for k in range(4)] if cosine else [1.0] * 4
    assert used == pytest.approx([0.5 * share for share in shares])
    assert told == [1, 2, 3, 4]


def test_descent_is_that_of_a_plain_loop() -> None:
    problem = load("digits", batch_size=32)
    model, other = problem.build(1), problem.build(1)
    descend(problem, model, SGD(model, lr=0.3, engine="eager"), steps=3, seed=7, cosine=False)
    peer = torch.optim.SGD(other.parameters(), lr=0.3)
    for step in range(3):
        peer.zero_grad()
        problem.loss(other, problem.batch(7, step)).backward()
        peer.step()
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_divergence_ends_a_run() -> None:
    problem = load("quadratic", dim=3, condition=1.0)
    model = problem.build(0)
    assert not descend(problem, model, SGD(model, lr=1e200, engine="eager"), steps=9, seed=0)


def test_the_training_loss_is_that_of_all_images() -> None:
    problem, everything = all_digits()
    assert len(everything.labels) == 1_197
    assert len(torch.unique(everything.pixels, dim=0)) > 1_190  # hardly any image twice
    model = problem.build(0)
    halves = [problem.loss(model, type(everything)(*(part[k::2] for part in everything)))
              for k in range(2)]  # fmt: skip
    mean = (599 * halves[0] + 598 * halves[1]).item() / 1_197
    assert digits_training_loss(model) == pytest.approx(mean, rel=1e-5)


def test_hopeless_losses_are_capped() -> None:
    class Constant(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            scores = torch.zeros(len(pixels), 10)
            scores[:, 0] = self.value
            return scores

    assert digits_training_loss(Constant(0.0)) == pytest.approx(math.log(10))
    assert digits_training_loss(Constant(1e6)) == WORST
    assert digits_training_loss(Constant(math.nan)) == WORST

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from anyorder import RankSGD  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
from anyorder.problems import load
from anyorder_studies.tang2023zoranksgd.twin import ValueSGD, weights


def test_weights_are_centred_and_as_large_as_those_of_a_full_order() -> None:
    values = torch.tensor([4.0, 1.0, 2.0, 9.0])
    found = torch.tensor(weights(values), dtype=torch.float64)
    assert float(found.sum()) == pytest.approx(0.0, abs=1e-12)
    order = torch.tensor([2.0 * rank - 3 for rank in range(4)]) / 6
    assert float(found.norm()) == pytest.approx(float(order.norm()))
    assert torch.allclose(found / found[1], (values.double() - 4.0) / (1.0 - 4.0))
    assert weights(torch.ones(3)) == [0.0, 0.0, 0.0]


def test_equally_spaced_values_make_the_twins_one() -> None:
    """Where values are as far apart as their ranks, both estimates are the same."""
    x, y = (nn.Parameter(torch.zeros(5, dtype=torch.float64)) for _ in range(2))
    ranks = RankSGD([x], lr=1.0, mu=0.1, points=4, line_search=0, seed=3, engine="eager")
    values = ValueSGD([y], lr=1.0, mu=0.1, points=4, line_search=0, seed=3, engine="eager")
    told = iter([2.0, 3.0, 1.0, 4.0, 2.0, 3.0, 1.0, 4.0])
    ranks.step(lambda: x.sum() * 0 + next(told))
    values.step(lambda: y.sum() * 0 + next(told))
    assert float(x.detach().norm()) > 0.1
    assert torch.allclose(x, y)


@pytest.mark.parametrize("seed", range(3))
def test_the_twins_ask_at_the_same_points(seed: int) -> None:
    asked: dict[str, list[list[float]]] = {}
    for name, method in (("ranks", RankSGD), ("values", ValueSGD)):
        x = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        seen = asked.setdefault(name, [])

        def closure(x: nn.Parameter = x, seen: list[list[float]] = seen) -> torch.Tensor:
            here = x * 1.0
            seen.append(here.tolist())
            return (here - 1.0).square().sum()

        method([x], lr=1.0, mu=0.1, points=6, line_search=2, seed=seed, engine="eager").step(
            closure
        )
    assert len(asked["ranks"]) == len(asked["values"]) == 10
    assert asked["ranks"][:8] == asked["values"][:8]  # the points, where we are, and the best point


def test_it_descends_counts_and_never_climbs() -> None:
    problem = load("quadratic", dim=4, condition=3.0)
    model = problem.build(0)
    optimizer = ValueSGD(model, lr=1.0, mu=0.01, points=8, engine="eager")
    losses = [problem.evaluate(model)["loss"]]
    for _ in range(25):
        optimizer.step(problem.closure(model, None))
        losses.append(problem.evaluate(model)["loss"])
    assert all(after <= before for before, after in itertools.pairwise(losses))
    assert losses[-1] < 0.02 * losses[0]
    assert optimizer.calls.values == 25 * (8 + 5 + 2)


def test_estimates_are_averaged_until_something_wins() -> None:
    x = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    settings = {"lr": 0.1, "mu": 0.1, "points": 5, "line_search": 1, "seed": 0, "engine": "eager"}
    optimizer = ValueSGD([x], **settings)

    def peak() -> torch.Tensor:  # nothing near is lower than where we are
        return x.abs().sum()

    estimates = []
    for step in range(2):
        single = ValueSGD([nn.Parameter(torch.zeros(3, dtype=torch.float64))], **settings)
        (y,) = single.param_groups[0]["params"]
        single.steps = step
        single.step(lambda y=y: y.abs().sum())
        estimates.append(single.state[y]["estimate"])
        optimizer.step(peak)
    assert x.tolist() == [0.0, 0.0, 0.0]
    assert torch.allclose(optimizer.state[x]["estimate"], (estimates[0] + estimates[1]) / 2)
    assert optimizer.extra_state() == {"averaged": 2}
    other = ValueSGD([nn.Parameter(torch.zeros(3, dtype=torch.float64))], **settings)
    other.step(lambda: other.param_groups[0]["params"][0].square().sum())
    other.load_state_dict(optimizer.state_dict())
    assert other.extra_state() == {"averaged": 2}
    assert math.isfinite(float(other.state[other.param_groups[0]["params"][0]]["estimate"].sum()))

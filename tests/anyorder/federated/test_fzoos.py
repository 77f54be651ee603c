from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from anyorder.federated import FZooS, Shared
from anyorder.federated.features import RandomFeatures
from anyorder.hyper import HyperError
from anyorder.linalg.gaussian_process import fit

X = torch.tensor([0.5, -0.2, 0.1, 0.4], dtype=torch.float64)
CURVES = torch.tensor([1.0, 2.0, 0.5, 1.5], dtype=torch.float64)


def bowl(x: Tensor) -> Tensor:
    return (CURVES * x.square()).sum() / 2


def client_of(asked: list[Tensor], **options: Any) -> FZooS:
    settings = {"queries": 3, "summary_queries": 6, "steps": 3, "features": 200, "lr": 0.01}
    return FZooS(lambda x: asked.append(x) or bowl(x), **{**settings, **options})  # type: ignore[func-returns-value]


def test_local_steps_by_hand() -> None:
    asked: list[Tensor] = []
    client = client_of(asked, optimizer=lambda params: torch.optim.SGD(params, lr=0.1))
    moved = client.local(X, None)
    x = X
    for step in range(3):
        assert torch.equal(asked[4 * step], x)
        around = torch.stack(asked[4 * step + 1 : 4 * step + 4]) - x
        assert 0 < around.abs().max() <= 0.01
        points = torch.stack(asked[: 4 * step + 4])
        model = fit(points, torch.stack([bowl(p) for p in points]))
        x = x - 0.1 * model.gradient(x)
    torch.testing.assert_close(moved[:-1], x, rtol=1e-12, atol=1e-12)
    assert float(moved[-1]) == pytest.approx(math.log(model.length))
    assert client.calls.values == len(asked) == 12


def test_the_summary_is_the_model_in_features_and_corrects_the_drift() -> None:
    asked: list[Tensor] = []
    client = client_of(asked, optimizer=lambda params: torch.optim.SGD(params, lr=0.1))
    client.local(X, None)
    averages = torch.tensor([math.log(0.3)], dtype=torch.float64)
    own = client.summary(X + 0.01, averages)
    assert len(asked) == 12 + 7 and (torch.stack(asked[-6:]) - X - 0.01).abs().max() <= 0.02
    points = torch.stack(asked)
    features = RandomFeatures(4, 200, 0)
    expected = features.fit(points, torch.stack([bowl(p) for p in points]), 0.3, 1e-6)
    torch.testing.assert_close(own, expected)
    mean = own + 0.5
    for step in (1, 4):
        found = client.correction(X, X, step, Shared(mean, own, averages))
        difference = features.gradient(mean, X, 0.3) - features.gradient(own, X, 0.3)
        torch.testing.assert_close(found, difference / step)  # gamma_t = 1 / t
    assert not client.correction(X, X, 1, None).any()


def test_values_per_round() -> None:
    client = client_of([])
    x, counts = X, []
    for _ in range(3):
        moved = client.local(x, None)
        x = moved[:-1]
        client.summary(x, moved[-1:])
        counts.append(client.calls.values)
    # The first local step of later rounds uses what was asked for the summary.
    assert counts == [3 * 4 + 7, 3 * 4 + 7 + 2 * 4 + 7, 3 * 4 + 7 + 2 * (2 * 4 + 7)]


def test_the_history_is_capped() -> None:
    asked: list[Tensor] = []
    client = client_of(asked, history=10)
    client.local(X, None)
    state = client.state_dict()
    assert torch.equal(state["points"], torch.stack(asked[-10:])) and len(state["values"]) == 10


def test_exploration_asks_where_the_gradient_is_most_uncertain() -> None:
    asked: list[Tensor] = []
    client = client_of(asked, steps=1, candidates=50)
    client.local(X, None)
    draws = torch.Generator().manual_seed(0)
    candidates = X + 0.01 * (2 * torch.rand(50, 4, dtype=torch.float64, generator=draws) - 1)
    unsure = fit(X[None], bowl(X)[None]).uncertainty(candidates)
    order = unsure.argsort(descending=True, stable=True)[:3]
    assert torch.equal(torch.stack(asked[1:]), candidates[order])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 7}, "features: expected an even number, got 7"),
        ({"radius": 0.0}, "radius: expected a distance > 0"),
        ({"lr": 0.0}, "radius: expected a distance > 0"),
        ({"history": 1}, "history: expected a value >= 2"),
        ({"noise": 0.0}, "noise: expected a value > 0"),
    ],
)
def test_settings_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperError, match=message):
        FZooS(bowl, **options)

"""Gradients of single samples against a loop over samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyorder.batching import BatchingError, per_sample_gradients


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def test_they_are_those_of_one_sample_at_a_time() -> None:
    model = net()
    model[0].bias.requires_grad_(False)
    x, y = torch.randn(5, 3).double(), torch.tensor([0, 1, 1, 0, 1])

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y)

    found = per_sample_gradients(model, loss, (x, y))
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert list(found) == list(trained)
    for i in range(5):
        expected = torch.autograd.grad(loss(x[i : i + 1], y[i : i + 1]), list(trained.values()))
        for name, gradient in zip(trained, expected, strict=True):
            torch.testing.assert_close(found[name][i], gradient)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("form", ["tensor", "dictionary"])
def test_batches_of_other_forms(form: str) -> None:
    model = net()
    x = torch.randn(4, 3).double()
    batch: Any = x if form == "tensor" else {"x": x}

    def loss(content: Any) -> Tensor:
        return model(content if form == "tensor" else content["x"]).square().mean()

    found = per_sample_gradients(model, loss, batch)
    (expected,) = torch.autograd.grad(model(x).square().mean(), [model[0].weight])
    torch.testing.assert_close(found["0.weight"].mean(0), expected)


def test_random_numbers_are_as_before_and_differ_between_samples() -> None:
    model = nn.Sequential(nn.Linear(50, 1), nn.Dropout(0.5))
    x = torch.ones(64, 50)
    state = torch.get_rng_state()
    found = per_sample_gradients(model, lambda x: model(x).sum(), x)
    assert torch.equal(torch.get_rng_state(), state)
    assert set(found["0.bias"].flatten().tolist()) == {0.0, 2.0}


def test_models_that_mix_samples_are_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    with pytest.raises(BatchingError, match="micro-batches work with any model"):
        per_sample_gradients(model, lambda x: model(x).sum(), torch.ones(4, 3))

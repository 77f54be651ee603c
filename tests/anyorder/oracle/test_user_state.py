"""Putting the user's world back: buffers, random numbers and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anyorder.oracle.user_state import UserState


def made() -> tuple[nn.BatchNorm1d, UserState]:
    norm = nn.BatchNorm1d(3)
    return norm, UserState(dict(norm.named_parameters()), norm)


def test_a_graph_outlives_the_evaluation_whose_buffers_were_put_back() -> None:
    norm, world = made()
    before = norm.running_mean
    assert before is not None
    kept = before.clone()
    with world.evaluation(keep=False):
        loss = norm(torch.randn(4, 3)).pow(3).sum()
        assert not torch.equal(norm.running_mean, kept)  # type: ignore[arg-type]
    assert norm.running_mean is before and torch.equal(before, kept)
    loss.backward()


def test_a_kept_evaluation_changes_the_very_buffers_and_a_failed_one_does_not() -> None:
    norm, world = made()
    before = norm.running_mean
    assert before is not None
    kept = before.clone()
    with pytest.raises(RuntimeError), world.evaluation(keep=True):
        norm(torch.randn(4, 3) + 5)
        raise RuntimeError
    assert torch.equal(before, kept)
    with world.evaluation(keep=True):
        norm(torch.randn(4, 3) + 5)
    assert norm.running_mean is before and not torch.equal(before, kept)


def test_all_evaluations_draw_the_same_numbers() -> None:
    world = UserState({"x": nn.Parameter(torch.ones(1))}, None)
    drawn: list[float] = []
    for keep in (False, True, False):
        with world.evaluation(keep=keep):
            drawn.append(torch.rand(()).item())
    assert len(set(drawn)) == 1
    assert torch.rand(()).item() != drawn[0], "the kept one has advanced the generator"


def test_shared_and_missing_buffers() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
            self.b.running_mean = self.a.running_mean
            self.register_buffer("none", None)

    model = Shared()
    world = UserState({}, model)
    with world.evaluation(keep=False):
        assert model.a.running_mean is model.b.running_mean
        model.a(torch.randn(4, 2))
        assert model.a.running_mean is model.b.running_mean
    assert bool((model.a.running_mean == 0).all())  # type: ignore[union-attr]


def test_gradients_are_set_aside_and_given_back() -> None:
    x = nn.Parameter(torch.ones(2))
    x.grad = torch.full((2,), 3.0)
    mine = x.grad
    world = UserState({"x": x}, None)
    with world.grads_put_aside() as before:
        assert not world.grads_changed(before)
        assert x.grad is None
        x.sum().backward()
    assert x.grad is mine and x.grad.tolist() == [3.0, 3.0]
    with world.grads_put_aside() as before:
        x.sum().backward()  # accumulates in place
        assert world.grads_changed(before)
        before.keep()
    assert x.grad.tolist() == [4.0, 4.0]

"""Putting the user's state back: buffers, random numbers and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from anyorder.oracle.user_state import UserState


def made() -> tuple[nn.BatchNorm1d, UserState]:
    norm = nn.BatchNorm1d(3)
    return norm, UserState(dict(norm.named_parameters()), norm)


def test_a_graph_outlives_the_evaluation_whose_buffers_were_put_back() -> None:
    norm, state = made()
    before = norm.running_mean
    assert before is not None
    kept = before.clone()
    with state.evaluation():
        loss = norm(torch.randn(4, 3)).pow(3).sum()
        assert not torch.equal(norm.running_mean, kept)  # type: ignore[arg-type]
    assert norm.running_mean is before and torch.equal(before, kept)
    loss.backward()


def test_a_kept_evaluation_changes_the_very_buffers_and_a_failed_one_does_not() -> None:
    norm, state = made()
    before = norm.running_mean
    assert before is not None
    kept = before.clone()
    state.waiting.add("")
    with pytest.raises(RuntimeError), state.evaluation():
        norm(torch.randn(4, 3) + 5)
        raise RuntimeError
    assert torch.equal(before, kept)
    with state.evaluation("another"):
        norm(torch.randn(4, 3) + 5)
    assert torch.equal(before, kept) and state.waiting == {""}
    with state.evaluation():
        norm(torch.randn(4, 3) + 5)
    assert norm.running_mean is before and not torch.equal(before, kept)


def test_all_evaluations_draw_the_same_numbers() -> None:
    state = UserState({"x": nn.Parameter(torch.ones(1))}, None)
    drawn: list[float] = []
    for keep in (False, True, False):
        state.waiting = {""} if keep else set()
        with state.evaluation():
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
    state = UserState({}, model)
    with state.evaluation():
        assert model.a.running_mean is model.b.running_mean
        model.a(torch.randn(4, 2))
        assert model.a.running_mean is model.b.running_mean
    assert bool((model.a.running_mean == 0).all())  # type: ignore[union-attr]


def test_gradients_are_set_aside_and_given_back() -> None:
    x = nn.Parameter(torch.ones(2))
    x.grad = torch.full((2,), 3.0)
    mine = x.grad
    state = UserState({"x": x}, None)
    with state.grads_put_aside() as before:
        assert not state.grads_changed(before)
        assert x.grad is None
        x.sum().backward()
    assert x.grad is mine and x.grad.tolist() == [3.0, 3.0]
    with state.grads_put_aside() as before:
        x.sum().backward()  # accumulates in place
        assert state.grads_changed(before)
        before.keep()
    assert x.grad.tolist() == [4.0, 4.0]


@pytest.mark.parametrize("left", [False, True])
def test_numpy_is_put_back_after_every_kind_of_use(left: bool) -> None:
    """Nothing, one number, a normal one (which leaves or uses a second one), two, another seed."""
    np.random.seed(3)  # noqa: NPY002
    if left:
        np.random.standard_normal()  # noqa: NPY002

    uses = [
        lambda: None,
        lambda: np.random.randint(2**31),  # noqa: NPY002
        lambda: np.random.standard_normal(),  # noqa: NPY002
        lambda: np.random.standard_normal(2),  # noqa: NPY002
        lambda: np.random.seed(3),  # noqa: NPY002
    ]
    state = UserState({}, None)
    before = repr(np.random.get_state()[1:])  # noqa: NPY002
    for use in [*uses, *uses]:
        with state.evaluation():
            use()
        assert repr(np.random.get_state()[1:]) == before  # noqa: NPY002

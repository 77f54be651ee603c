"""Faults found by looking for them, each with what torch.optim does or what is right."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import anyorder
from anyorder import methods
from anyorder.errors import AnyOrderError

from .worlds import (
    KEEPING,
    METHODS,
    STATES,
    WIDE,
    advance,
    agree,
    backward,
    closure_for,
    close,
    copies,
    equal,
    frozen,
    loss_of,
    make,
    named,
    start,
)


def _tensors(optimizer: Any) -> list[Tensor]:
    """The tensors of all entries that are shaped like parameters or blocks of them."""
    return [
        value
        for entry in optimizer.state.values()
        for value in entry.values()
        if isinstance(value, Tensor) and value.ndim
    ]


# The state is the truth --------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "state"), [s for s in STATES if s[0] in KEEPING])
def test_state_moved_by_its_data_is_used_and_saved(name: str, state: str) -> None:
    """``value.data = value.data.to(device)``, the usual lines that move state to a device."""
    options = {} if state == "fp32" else {"state": state}
    params, others = start(WIDE, (5,)), start(WIDE, (5,))
    one, two = make(name, named(params), **options), make(name, named(others), **options)
    advance(name, one, params, steps=2)
    advance(name, two, others, steps=2)
    for value in _tensors(one):
        value.data = value.data.clone()
    advance(name, one, params, steps=2)
    advance(name, two, others, steps=2)
    assert equal(params, others)
    assert agree(frozen(one.state_dict()["state"]), frozen(two.state_dict()["state"]))


def test_state_whose_data_is_exchanged_ends_where_torch_ends() -> None:
    params, others = start(), start()
    one = anyorder.AdamW(params, lr=0.05, weight_decay=0.0)
    two = torch.optim.AdamW(others, lr=0.05, weight_decay=0.0)
    for optimizer, given in ((one, params), (two, others)):
        backward(optimizer, given, steps=2)
        for value in _tensors(optimizer):
            value.data = torch.full_like(value, 0.25)
        backward(optimizer, given, steps=2)
    close(params, others)


def test_another_shape_of_as_many_elements_is_refused() -> None:
    """PyTorch refuses it too: momenta of a matrix are no momenta of its transpose."""
    param = nn.Parameter(torch.arange(12.0).view(4, 3))
    optimizer = anyorder.AdamW([param])
    param.grad = torch.ones(4, 3)
    optimizer.step()
    param.grad = None
    param.data = param.data.t().contiguous()
    param.grad = torch.ones(3, 4)
    before = param.detach().clone()
    with pytest.raises(AnyOrderError, match="shape"):
        optimizer.step()
    assert torch.equal(param, before)
    del optimizer.state[param]
    optimizer.step()

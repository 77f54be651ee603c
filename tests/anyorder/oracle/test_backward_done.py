"""Gradients from ``backward()``: counted, checked, turned and clipped as an oracle's are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anyorder import SGD, Budget
from anyorder.oracle.backward_done import Given
from anyorder.oracle.gradients import NonFiniteError, SkipStep, SparseGradientError
from anyorder.oracle.ledger import BudgetExhausted


def made(**options: object) -> tuple[nn.Parameter, nn.Parameter, SGD]:
    x, y = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1))
    optimizer = SGD([("x", x), ("y", y)], lr=0.1, **options)  # type: ignore[arg-type]
    x.grad = torch.tensor([3.0, 4.0])
    return x, y, optimizer


def test_what_is_there_is_given_and_counted() -> None:
    x, _, optimizer = made()
    given = Given(optimizer)
    loss, grads = given.grad()
    assert loss.isnan()
    assert grads[0] is x.grad and grads[1] is None
    assert optimizer.calls.grads == 1
    assert given.slopes() == {id(x): x.grad}


def test_climbing_and_clipping() -> None:
    x, _, optimizer = made(maximize=True, clip_norm=1.0)
    _, grads = Given(optimizer).grad()
    assert grads[0] is not None
    torch.testing.assert_close(grads[0], torch.tensor([-0.6, -0.8]), rtol=1e-5, atol=0)
    assert x.grad is not None and x.grad.tolist() == [3.0, 4.0]


def test_what_is_refused_is_not_counted_as_a_step() -> None:
    x, _, optimizer = made(budget=Budget(grads=1))
    assert x.grad is not None
    x.grad[0] = float("nan")
    with pytest.raises(NonFiniteError, match="not finite in x"):
        Given(optimizer).grad()
    with pytest.raises(BudgetExhausted):
        Given(optimizer).grad()
    _, _, skipping = made(nonfinite="skip")
    skipping.param_groups[0]["params"][0].grad[0] = float("inf")
    with pytest.raises(SkipStep):
        Given(skipping).grad()


def test_sparse_ones_are_refused_before_anything_is_counted() -> None:
    table = nn.Embedding(3, 2, sparse=True)
    optimizer = SGD(table, lr=0.1)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(SparseGradientError, match="weight"):
        Given(optimizer).grad()
    assert optimizer.calls.grads == 0

"""Gradients from ``backward()``: counted, checked, turned and clipped as an oracle's are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from anyorder.oracle import BackwardDone, Budget, BudgetExhausted, NeedsError, NonFiniteError
from anyorder.oracle.gradients import SkipStep, SparseGradientError
from anyorder.points.directions import Shift


def made(**policies: Any) -> tuple[nn.Parameter, BackwardDone]:
    x, y = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1))
    x.grad = torch.tensor([3.0, 4.0])
    return x, BackwardDone({"x": x, "y": y}, **policies)


def test_what_is_there_is_given_and_counted() -> None:
    x, oracle = made()
    loss, grads = oracle.grad()
    assert loss.isnan()
    assert grads[0] is x.grad and grads[1] is None
    assert oracle.calls.grads == 1
    assert oracle.grads_by_param() == {id(x): x.grad}


def test_climbing_and_clipping() -> None:
    x, oracle = made(maximize=True, clip=1.0)
    _, grads = oracle.grad()
    assert grads[0] is not None
    torch.testing.assert_close(grads[0], torch.tensor([-0.6, -0.8]), rtol=1e-5, atol=0)
    assert x.grad is not None and x.grad.tolist() == [3.0, 4.0]


def test_what_is_refused_is_not_counted_as_a_step() -> None:
    x, oracle = made(budget=Budget(grads=1))
    assert x.grad is not None
    x.grad[0] = float("nan")
    with pytest.raises(NonFiniteError, match="not finite in x"):
        oracle.grad()
    with pytest.raises(BudgetExhausted):
        oracle.grad()
    y, skipping = made(nonfinite="skip")
    assert y.grad is not None
    y.grad[0] = float("inf")
    with pytest.raises(SkipStep):
        skipping.grad()


def test_sparse_ones_are_refused_before_anything_is_counted() -> None:
    table = nn.Embedding(3, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    oracle = BackwardDone(dict(table.named_parameters()))
    with pytest.raises(SparseGradientError, match="weight"):
        oracle.grad()
    assert oracle.calls.grads == 0


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (lambda o: o.value(), "values"),
        (lambda o: o.values([Shift()]), "values"),
        (lambda o: o.rank([Shift()]), "rankings"),
        (lambda o: o.hessian(), "curvature"),
        (lambda o: o.hessian(products="finite"), "curvature"),
        (lambda o: o.ggn(), "curvature"),
        (lambda o: o.grad_at(Shift()), "gradients at other points"),
        (lambda o: o.output_grad(), "gradients in the model's outputs"),
        (lambda o: o.reusing_outputs(lambda z: z.sum()), "the model's outputs"),
    ],
)
def test_anything_else_is_refused_in_words(ask: Callable[[BackwardDone], Any], what: str) -> None:
    _, oracle = made()
    before = oracle.calls.to_dict()
    says = rf"that provides {what}; this one knows only the gradients .* optimizer\.step\(lambda"
    with pytest.raises(NeedsError, match=says):
        ask(oracle)
    assert oracle.calls.to_dict() == before

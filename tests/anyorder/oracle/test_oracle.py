"""What every oracle does, wherever its answers come from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyorder import SGD
from anyorder.oracle import BackwardDone, Budget, Calls, ClosureOracle, NonFiniteError, Oracle
from anyorder.oracle.gradients import SkipStep
from anyorder.oracle.ledger import BudgetExhausted

SLOPES = torch.tensor([3.0, -4.0])


def from_closure(x: nn.Parameter, factor: float, **policies: Any) -> Oracle:
    return ClosureOracle(lambda: (x * SLOPES * factor).sum(), {"x": x}, **policies)


def from_backward(x: nn.Parameter, factor: float, **policies: Any) -> Oracle:
    (x * SLOPES * factor).sum().backward()
    return BackwardDone({"x": x}, **policies)


BOTH = pytest.mark.parametrize("make", [from_closure, from_backward])


@BOTH
def test_the_layers_around_a_gradient_are_the_same(make: Any) -> None:
    x = nn.Parameter(torch.ones(2))
    calls = Calls()
    oracle = make(x, 1.0, maximize=True, clip=1.0, calls=calls)
    _, (grad,) = oracle.grad()
    assert torch.allclose(grad, -SLOPES / 5)
    assert oracle.grads_by_param() == {id(x): grad}
    assert calls.grads == 1 and oracle.calls is calls


@BOTH
def test_what_is_not_finite_is_met_by_the_policy(make: Any) -> None:
    for policy, error in (("raise", NonFiniteError), ("skip", SkipStep)):
        with pytest.raises(error):
            make(nn.Parameter(torch.ones(2)), float("inf"), nonfinite=policy).grad()
    _, (grad,) = make(nn.Parameter(torch.ones(2)), float("inf"), nonfinite="ignore").grad()
    assert bool(grad.isinf().all())


@BOTH
def test_the_budget_comes_first(make: Any) -> None:
    oracle = make(nn.Parameter(torch.ones(2)), 1.0, budget=Budget(grads=1))
    oracle.grad()
    with pytest.raises(BudgetExhausted):
        oracle.grad()
    assert oracle.calls.grads == 1


@BOTH
def test_frozen_parameters_are_left_out_unless_all_are(make: Any) -> None:
    x, frozen = nn.Parameter(torch.ones(2)), torch.ones(3)
    assert list(make(x, 1.0).params) == ["x"]
    assert list(BackwardDone({"x": x, "frozen": frozen}).params) == ["x"]
    assert list(BackwardDone({"frozen": frozen}).params) == ["frozen"]


def test_a_kind_of_oracle_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is needed is a gradient."""

    class Simulator(Oracle):
        knows, instead = "a simulator", "Ask for its gradient"

        def grad(self) -> tuple[Tensor, list[Tensor | None]]:
            with self._asking(grads=1):
                found: list[Tensor | None] = [2 * p.detach() for p in self.params.values()]
            return torch.tensor(0.0), self._taken(self._turned(found))

    x = nn.Parameter(torch.ones(2))
    optimizer = SGD([("x", x)], lr=0.25, engine="eager")
    simulator = Simulator(optimizer.named_params(), calls=optimizer.calls)
    monkeypatch.setattr(optimizer, "oracle", lambda *_, **__: simulator)
    assert optimizer.step(lambda: x.sum()) == 0.0
    assert x.tolist() == [0.5, 0.5] and optimizer.calls.grads == 1

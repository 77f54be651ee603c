"""What a rule declares, and what surrounds it because of that."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyorder.hyper import hyper
from anyorder.optimizer import Optimizer
from anyorder.oracle import Oracle
from anyorder.rules import Rule
from anyorder.rules.descent import DESCENT, lr_of


def nothing_(param: Tensor, grad: Tensor) -> None:
    """Leaves the parameter where it is."""
    param.add_(grad * 0.0)


def run(rule: Rule, **options: Any) -> tuple[nn.Parameter, Optimizer]:
    """One step of a method with this rule from 1, where the gradient is 2."""

    class Method(Optimizer):
        """The rule, whatever it declares."""

        rules = {"": (rule,)}  # noqa: RUF012
        lr: float = hyper(0.1, ge=0, doc="step size")
        weight_decay: float = hyper(0.5, ge=0, doc="decay")

        def update(self, oracle: Oracle) -> Tensor:
            """One gradient, the rule."""
            loss, grads = oracle.grad()
            self.apply(rule, grads)
            return loss

    x = nn.Parameter(torch.ones(4, dtype=torch.float64))
    optimizer = Method([x], engine="eager", **options)
    optimizer.step(lambda: (x**2).sum())
    return x, optimizer


def test_a_rule_needs_a_function_alone() -> None:
    rule = Rule(nothing_)
    assert rule.scalars({"lr": 1.0}, 3) == {} and rule.buffers == () and rule.hypers == {}
    assert rule.gradient and rule.ends_step and not rule.own_decay


def test_rules_are_constants_and_known_by_identity() -> None:
    with pytest.raises(FrozenInstanceError):
        DESCENT.gradient = False  # type: ignore[misc]
    assert replace(DESCENT) != DESCENT and len({DESCENT, replace(DESCENT)}) == 2


@pytest.mark.parametrize(
    ("declared", "options", "end"),
    [
        ({}, {}, 1 - 0.1 * 0.5),
        ({}, {"decoupled_weight_decay": False}, 1.0),
        ({"own_decay": True}, {}, 1.0),
        ({"gradient": False}, {}, 1.0),
        ({"ends_step": False}, {}, 1.0),
    ],
)
def test_decay_is_done_around_rules_of_gradients(
    declared: dict[str, Any], options: dict[str, Any], end: float
) -> None:
    x, optimizer = run(Rule(nothing_, **declared), **options)
    assert x.tolist() == pytest.approx([end] * 4)
    assert optimizer.state[x]["step"] == 1  # of the method, where no rule counts its own


@pytest.mark.parametrize("gradient", [True, False])
def test_coupled_decay_is_added_to_a_first_input_that_is_a_gradient(gradient: bool) -> None:
    rule = Rule(DESCENT.function, scalars=lr_of, gradient=gradient)
    options = {"decoupled_weight_decay": False} if gradient else {}
    x, _ = run(rule, **options)
    assert x.tolist() == pytest.approx([1 - 0.1 * (2 + 0.5 * gradient)] * 4)

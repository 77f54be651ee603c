"""ZO-SGD-Cons against its formulas, and no step that raises the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from anyorder import ZOConservative
from anyorder.testing import MethodContract, Values, World
from anyorder.testing.worlds import bend


def test_the_loss_never_rises_whatever_the_step_size() -> None:
    params, closure = bend()
    optimizer = ZOConservative(params.items(), lr=0.1, eps=1e-3, engine="eager")
    losses = [optimizer.step(closure).item() for _ in range(30)]
    losses.append(closure().item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] and len(set(losses)) < 31  # some steps stay
    assert optimizer.calls.values == 5 * 30


def test_the_returned_loss_is_that_where_the_step_began() -> None:
    params, closure = bend()
    start = closure().item()
    assert ZOConservative(params.items(), engine="eager").step(closure).item() == start


@pytest.mark.parametrize("lr", [0.1, 100.0])
def test_a_point_without_a_value_is_not_the_best(lr: float) -> None:
    x = nn.Parameter(torch.tensor([1.0]))
    optimizer = ZOConservative([x], lr=lr, nonfinite="ignore", engine="eager")
    for _ in range(5):
        optimizer.step(lambda: torch.where(x.abs() < 1.5, x, torch.nan).sum())
    assert bool(x.abs() < 1.5)


def test_groups_have_their_own_step_sizes() -> None:
    a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    groups = [{"params": [a], "lr": 0.0}, {"params": [b], "lr": 0.01}]
    ZOConservative(groups, engine="eager").step(lambda: (a * b).sum())
    assert a.tolist() == [1.0] * 3 and b.tolist() != [1.0] * 3


class TestContract(MethodContract):
    method = ZOConservative
    options: ClassVar[dict[str, Any]] = {"lr": 1e-3}
    half: ClassVar[dict[str, Any]] = {"eps": 0.05}
    reference_settings = ({"lr": 1e-3}, {"lr": 0.1, "eps": 0.1, "directions": 3, "seed": 4})

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        for step in range(steps):
            grad = world.estimate(
                values,
                options["seed"],
                step,
                directions=options["directions"],
                eps=options["eps"],
            )
            ahead, behind = (
                {name: x + sign * options["lr"] * grad[name] for name, x in values.items()}
                for sign in (-1.0, 1.0)
            )
            values = min((values, ahead, behind), key=world.value)
        return values

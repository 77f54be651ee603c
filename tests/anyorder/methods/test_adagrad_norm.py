"""AdaGrad-Norm: its recursion in a plain loop, limit cases, one sum for everything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from anyorder.hyper import HyperError
from anyorder.methods.adagrad import AdaGrad
from anyorder.methods.adagrad_norm import AdaGradNorm
from anyorder.testing import MethodContract, Values, World

SCALES = torch.tensor([1.0, 10.0, 0.1], dtype=torch.float64)


def start() -> nn.Parameter:
    return nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))


@pytest.mark.parametrize(("lr", "initial"), [(1.0, 0.0), (0.3, 2.0)])
def test_asks_for_one_gradient_a_step(lr: float, initial: float) -> None:
    x = start()
    optimizer = AdaGradNorm([x], lr=lr, initial=initial)
    for _ in range(25):
        optimizer.step(lambda: (SCALES * x**2).sum() / 2)
    assert optimizer.calls.grads == 25 and optimizer.calls.values == 0


def test_one_coordinate_is_the_same_as_adagrad() -> None:
    a = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    b = nn.Parameter(a.detach().clone())
    norm, plain = AdaGradNorm([a], lr=0.2), AdaGrad([b], lr=0.2)
    for _ in range(20):
        norm.step(lambda: (a**4).sum())
        plain.step(lambda: (b**4).sum())
    torch.testing.assert_close(a, b, rtol=1e-14, atol=0)


def test_the_first_step_is_as_long_as_lr_over_all_parameters() -> None:
    x, y = start(), nn.Parameter(torch.ones(4, 2, dtype=torch.float64))
    before = torch.cat([x.detach(), y.detach().flatten()])
    AdaGradNorm([x, y], lr=0.7).step(lambda: (x**2).sum() + (y**3).sum())
    moved = torch.cat([x.detach(), y.detach().flatten()]) - before
    assert moved.norm().item() == pytest.approx(0.7, rel=1e-9)


def test_the_direction_is_the_gradient_s() -> None:
    x = start()
    before = x.detach().clone()
    AdaGradNorm([x]).step(lambda: (SCALES * x**2).sum() / 2)
    ratio = (before - x.detach()) / (SCALES * before)
    torch.testing.assert_close(ratio, ratio[:1].expand(3))


def test_a_gradient_of_zero_moves_nothing() -> None:
    x = start()
    before = x.detach().clone()
    optimizer = AdaGradNorm([x], eps=0.0)
    optimizer.step(lambda: (x * 0.0).sum())
    assert torch.equal(x, before) and optimizer.squares == 0.0


def test_the_sum_is_saved() -> None:
    x = start()
    optimizer = AdaGradNorm([x])
    optimizer.step(lambda: (x**2).sum() / 2)
    again = AdaGradNorm([start()])
    again.load_state_dict(optimizer.state_dict())
    assert again.squares == optimizer.squares == 14.0
    assert not any(k for k in optimizer.state[x] if k != "step")


def test_groups_share_the_sum_and_so_its_start() -> None:
    x, y = start(), start()
    with pytest.raises(HyperError, match="one sum for all groups"):
        AdaGradNorm([{"params": [x]}, {"params": [y], "initial": 1.0}])


# The contract ----------------------------------------------------------------------------------


class TestContract(MethodContract):
    method = AdaGradNorm
    reference_settings = (
        {},
        {"lr": 0.3, "initial": 2.0},
        {"lr": 0.5, "initial": 1.0, "eps": 0.5, "weight_decay": 0.2},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        """Algorithm 1 of Ward et al. (2020), its norm over all parameters; decay is decoupled."""
        square = options["initial"] ** 2
        for _ in range(steps):
            gradient = world.gradient(values)
            square += sum(float(g) ** 2 for array in gradient.values() for g in array.flat)
            rate = options["lr"] / (math.sqrt(square) + options["eps"])
            for name, value in values.items():
                for place in np.ndindex(value.shape):
                    decay = options["lr"] * options["weight_decay"] * value[place]
                    value[place] -= rate * gradient[name][place] + decay
        return values

"""AdaGrad-Norm: its recursion in a plain loop, limit cases, one sum for everything."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from anyorder.hyper import HyperError
from anyorder.methods.adagrad import AdaGrad
from anyorder.methods.adagrad_norm import AdaGradNorm

SCALES = torch.tensor([1.0, 10.0, 0.1], dtype=torch.float64)


def start() -> nn.Parameter:
    return nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))


@pytest.mark.parametrize(("lr", "initial"), [(1.0, 0.0), (0.3, 2.0)])
def test_equals_the_recursion(lr: float, initial: float) -> None:
    """Algorithm 1 of Ward et al. (2020)."""
    x = start()
    values, square = x.detach().tolist(), initial**2
    for _ in range(25):
        gradient = [s * v for s, v in zip(SCALES.tolist(), values, strict=True)]
        square += sum(g * g for g in gradient)
        values = [
            v - lr / (math.sqrt(square) + 1e-10) * g for v, g in zip(values, gradient, strict=True)
        ]
    optimizer = AdaGradNorm([x], lr=lr, initial=initial)
    for _ in range(25):
        optimizer.step(lambda: (SCALES * x**2).sum() / 2)
    np.testing.assert_allclose(x.detach().numpy(), values, rtol=1e-12)
    assert optimizer.calls.grads == 25


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

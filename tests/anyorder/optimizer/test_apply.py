"""What happens around a rule: decay, masks, random bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyorder import SGD, AdamW


def cautious_by_hand(x: np.ndarray, grad: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Algorithm 1 of Liang et al. (2024), one element at a time; ``move`` is added."""
    kept = [i for i in np.ndindex(x.shape) if move[i] * grad[i] < 0]
    out = x.copy()
    for i in kept:
        out[i] += move[i] * x.size / (len(kept) + 1)
    return out


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_cautious_steps_equal_the_algorithm(decay: float) -> None:
    rng = np.random.default_rng(0)
    start = {"a": rng.normal(size=(7, 5)), "b": rng.normal(size=4)}
    slopes = [{n: rng.normal(size=v.shape) for n, v in start.items()} for _ in range(6)]
    params = {n: nn.Parameter(torch.tensor(v)) for n, v in start.items()}
    optimizer = SGD(
        params.items(), lr=0.1, momentum=0.9, cautious=True, weight_decay=decay,
        decoupled_weight_decay=True, engine="eager",
    )  # fmt: skip
    held = {n: np.zeros_like(v) for n, v in start.items()}
    for slope in slopes:
        optimizer.step(
            lambda s=slope: sum((params[n] * torch.tensor(g)).sum() for n, g in s.items())
        )
        for name, g in slope.items():
            held[name] = 0.9 * held[name] + g
            moved = cautious_by_hand(start[name], g, -0.1 * held[name])
            start[name] = moved - 0.1 * decay * start[name]
            np.testing.assert_allclose(params[name].detach().numpy(), start[name], rtol=1e-12)


def test_plain_descent_is_always_cautious_enough() -> None:
    """Every element moves against its gradient, so all of n are kept: n / (n + 1) of the step."""
    x = nn.Parameter(torch.ones(9, dtype=torch.float64))
    SGD([x], lr=0.1, cautious=True, engine="eager").step(lambda: x.sum())
    torch.testing.assert_close(x.detach(), torch.full((9,), 1 - 0.1 * 9 / 10).double())


def rounded(seed: int, steps: int, **options: Any) -> Tensor:
    x = nn.Parameter(torch.ones(4096, dtype=torch.bfloat16))
    optimizer = AdamW(
        [("x", x)], lr=1e-4, stochastic_rounding=True, seed=seed, engine="eager", **options
    )
    for _ in range(steps):
        optimizer.step(lambda: x.float().sum())
    return x.detach().float()


@pytest.mark.parametrize("cautious", [False, True])
def test_rounded_weights_are_right_on_average(cautious: bool) -> None:
    lost = 1 - rounded(0, 10, weight_decay=0.0, cautious=cautious).mean().item()
    assert lost == pytest.approx(10 * 1e-4, rel=0.2)


def test_float16_beside_bfloat16_is_rounded_to_the_nearest() -> None:
    """Random bits of bfloat16 would cost float16 three of its own."""
    found: list[Tensor] = []
    for beside in (False, True):
        x = nn.Parameter(torch.linspace(0.5, 1.0, 4096).half())
        y = nn.Parameter(torch.ones(64, dtype=torch.bfloat16))
        params = [("x", x), ("y", y)] if beside else [("x", x)]
        optimizer = AdamW(params, lr=1e-2, stochastic_rounding=beside, engine="eager")
        optimizer.step(lambda x=x, y=y: (x.float() ** 2).sum() + y.float().sum())
        found.append(x.detach())
    assert torch.equal(*found)


def test_random_bits_follow_from_seed_and_step() -> None:
    assert torch.equal(rounded(0, 3), rounded(0, 3))
    assert not torch.equal(rounded(0, 3), rounded(1, 3))
    once, twice = rounded(0, 1), rounded(0, 2)
    assert not torch.equal(once == 1, (twice == 1) & (once == 1)) or bool((twice < 1).any())


def test_decay_follows_the_step_size_of_its_group() -> None:
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    groups = [{"params": [("a", a)], "lr": 0.1}, {"params": [("b", b)], "weight_decay": 0.0}]
    optimizer = AdamW(groups, lr=0.2, weight_decay=0.5, engine="eager")
    optimizer.step(lambda: 0.0 * (a.sum() + b.sum()))
    torch.testing.assert_close(a.detach(), torch.full((2,), 0.95))
    assert b.tolist() == [1.0, 1.0]

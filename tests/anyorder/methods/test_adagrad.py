"""AdaGrad: its formulas in plain loops, limit cases, and the same run as torch.optim.Adagrad."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from anyorder.hyper import HyperError
from anyorder.methods.adagrad import AdaGrad
from anyorder.testing import MethodContract, Values, World
from anyorder.testing.worlds import bend, slopes


def by_hand(
    values: Values,
    steps: int,
    s: Mapping[str, Any],
    gradient_at: Callable[[Values], Values] = slopes,
) -> Values:
    """Figure 1 of Duchi et al. (2011), diagonal, composite term zero; one element at a time."""
    values = {name: value.copy() for name, value in values.items()}
    sums = {name: np.full_like(value, s["initial"]) for name, value in values.items()}
    for t in range(1, steps + 1):
        gradient = gradient_at(values)
        for name, value in values.items():
            for place in np.ndindex(value.shape):
                g = gradient[name][place] + s["weight_decay"] * value[place]
                sums[name][place] += g * g
                lr = s["lr"] / (1 + (t - 1) * s["lr_decay"])
                value[place] -= lr * g / (math.sqrt(sums[name][place]) + s["eps"])
    return values


SETTINGS: list[dict[str, float]] = [
    {"lr": 0.1, "lr_decay": 0.0, "initial": 0.0, "eps": 1e-10, "weight_decay": 0.0},
    {"lr": 0.3, "lr_decay": 0.05, "initial": 0.1, "eps": 1e-3, "weight_decay": 0.2},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_equals_the_formulas_element_by_element(settings: dict[str, float]) -> None:
    params, closure = bend()
    expected = by_hand({n: p.detach().numpy() for n, p in params.items()}, 30, settings)
    optimizer = AdaGrad(params.items(), **settings)
    for _ in range(30):
        optimizer.step(closure)
    for name, p in params.items():
        np.testing.assert_allclose(p.detach().numpy(), expected[name], rtol=1e-12, atol=1e-13)
    assert optimizer.calls.grads == 30 and optimizer.calls.values == 0


@pytest.mark.parametrize("settings", SETTINGS)
def test_runs_as_the_one_of_torch(settings: dict[str, float]) -> None:
    params, closure = bend()
    others, other_closure = bend()
    optimizer = AdaGrad(params.items(), **settings)
    theirs: dict[str, Any] = dict(settings)
    theirs["initial_accumulator_value"] = theirs.pop("initial")
    peer = torch.optim.Adagrad(others.values(), **theirs)
    for _ in range(50):
        optimizer.step(closure)
        peer.zero_grad()
        other_closure().backward()
        peer.step()
    for name, p in params.items():
        torch.testing.assert_close(p, others[name], rtol=1e-12, atol=1e-13)


def test_the_first_step_has_the_size_of_lr() -> None:
    x = nn.Parameter(torch.tensor([1e-4, -1.0, 1e6]))
    AdaGrad([x], lr=0.25).step(lambda: (x**2).sum())
    torch.testing.assert_close(x, torch.tensor([1e-4 - 0.25, -0.75, 1e6 - 0.25]))


def test_equal_gradients_give_steps_that_fall_with_the_root_of_time() -> None:
    x = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = AdaGrad([x], lr=1.0)
    places = [0.0]
    for _ in range(9):
        optimizer.step(lambda: x.sum())
        places.append(x.item())
    np.testing.assert_allclose(-np.diff(places), 1 / np.sqrt(np.arange(1, 10)), rtol=1e-9)


def test_a_group_may_start_its_sum_elsewhere() -> None:
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    groups = [{"params": [("a", a)]}, {"params": [("b", b)], "initial": 3.0}]
    AdaGrad(groups, lr=1.0).step(lambda: a.sum() + b.sum())
    assert (a.item(), b.item()) == (0.0, 0.5)


@pytest.mark.parametrize("name", ["lr_decay", "initial", "weight_decay"])
def test_negative_settings_are_refused(name: str) -> None:
    with pytest.raises(HyperError, match=rf"{name}: expected a value >= 0"):
        AdaGrad([nn.Parameter(torch.ones(1))], **{name: -1.0})


# The contract ----------------------------------------------------------------------------------


class TestContract(MethodContract):
    method = AdaGrad
    reference_settings = ({}, *SETTINGS)

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        return by_hand(values, steps, options, world.gradient)

"""AdamW: its formulas in plain loops, limit cases, and the same run as torch.optim.AdamW."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyorder.hyper import HyperError
from anyorder.methods.adamw import AdamW
from anyorder.testing import MethodContract, Values, World
from anyorder.testing.worlds import bend, slopes

STEPS = 40


def schedule(step: int) -> float:
    """Warm-up from zero, then a cosine."""
    return min(step / 5, 1.0) * (1 + math.cos(0.1 * step)) / 2


def by_hand(
    values: Values,
    settings: Mapping[str, Mapping[str, Any]],
    gradient_at: Callable[[Values], Values] = slopes,
    steps: int = STEPS,
    schedule: Callable[[int], float] = schedule,
) -> Values:
    """Algorithm 2 of Loshchilov and Hutter (2019), one element at a time.

    Their schedule multiplies both the step and the decay, as learning-rate schedules do here.
    """
    values = {name: value.copy() for name, value in values.items()}
    m = {name: np.zeros_like(value) for name, value in values.items()}
    v = {name: np.zeros_like(value) for name, value in values.items()}
    for t in range(1, steps + 1):
        gradient = gradient_at(values)
        for name, value in values.items():
            s = settings[name]
            (b1, b2), lr = s["betas"], s["lr"] * schedule(t - 1)
            for place in np.ndindex(value.shape):
                g = gradient[name][place]
                m[name][place] = b1 * m[name][place] + (1 - b1) * g
                v[name][place] = b2 * v[name][place] + (1 - b2) * g * g
                mean = m[name][place] / (1 - b1**t)
                square = v[name][place] / (1 - b2**t)
                move = mean / (math.sqrt(square) + s["eps"]) + s["weight_decay"] * value[place]
                value[place] -= lr * move
    return values


# The formulas ----------------------------------------------------------------------------------


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.9), (0.5, 0.3), (0.95, 0.5)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_equals_the_formulas_element_by_element(
    betas: tuple[float, float], weight_decay: float
) -> None:
    params, closure = bend()
    groups: dict[str, dict[str, Any]] = {
        "matrix": {"lr": 0.02, "betas": betas, "eps": 1e-8, "weight_decay": weight_decay},
        "vector": {"lr": 0.05, "betas": (0.8, 0.99), "eps": 1e-2, "weight_decay": weight_decay / 3},
    }
    start = {name: p.detach().numpy().copy() for name, p in params.items()}
    expected = by_hand(start, groups)
    optimizer = AdamW(
        [{"params": [(name, p)], **groups[name]} for name, p in params.items()], engine="eager"
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    for _ in range(STEPS):
        optimizer.step(closure)
        scheduler.step()
    for name, p in params.items():
        np.testing.assert_allclose(p.detach().numpy(), expected[name], rtol=1e-10, atol=1e-13)
        assert not np.allclose(expected[name], start[name], rtol=1e-2)


# torch.optim.AdamW -----------------------------------------------------------------------------

GRID = [
    {"betas": b, "eps": e, "weight_decay": w}
    for b, e, w in itertools.product(
        ((0.9, 0.999), (0.0, 0.99), (0.9, 0.5)), (1e-8, 1e-3), (0.0, 1e-2, 0.5)
    )
]


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("settings", GRID, ids=lambda s: " ".join(map(str, s.values())))
def test_takes_the_same_run_as_torch(settings: dict[str, Any], maximize: bool) -> None:
    ours, closure = bend()
    theirs, other = bend()
    a = AdamW(ours.items(), lr=0.01, engine="eager", maximize=maximize, **settings)
    b = torch.optim.AdamW(theirs.values(), lr=0.01, maximize=maximize, **settings)
    for _ in range(STEPS):
        a.step(closure)
        b.zero_grad()
        other().backward()
        b.step()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_takes_the_same_run_as_torch_on_a_network(dtype: torch.dtype) -> None:
    def network() -> nn.Module:
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2)).to(dtype)

    ours, theirs = network(), network()
    x, y = torch.randn(16, 5, dtype=dtype), torch.randn(16, 2, dtype=dtype)
    a = AdamW(ours, lr=0.01, engine="eager")
    b = torch.optim.AdamW(theirs.parameters(), lr=0.01)
    for _ in range(50):
        a.step(lambda: nn.functional.mse_loss(ours(x), y))
        b.zero_grad()
        nn.functional.mse_loss(theirs(x), y).backward()
        b.step()
    exact = dtype is torch.float64
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(
            p, q, rtol=1e-9 if exact else 1e-3, atol=1e-11 if exact else 1e-5
        )


def test_parameter_without_gradient_stands_still_as_in_torch() -> None:
    """Steps are counted per parameter: one that is skipped twice keeps its own bias correction."""

    def run(make: Callable[..., Any]) -> list[Tensor]:
        a, b = nn.Parameter(torch.ones(3).double()), nn.Parameter(torch.ones(2).double())
        optimizer = make([a, b], lr=0.1, weight_decay=0.1)
        for step in range(9):
            optimizer.zero_grad()
            loss = (a**2).sum() + ((b**2).sum() if step % 3 == 0 else 0.0)
            loss.backward()
            optimizer.step()
        return [a.detach(), b.detach()]

    for p, q in zip(run(AdamW), run(torch.optim.AdamW), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=0.0)


# Limit cases -----------------------------------------------------------------------------------


def linear(slope: list[float], **settings: Any) -> tuple[Tensor, AdamW, Callable[[], Tensor]]:
    """A loss of constant slope from x = 2."""
    g = torch.tensor(slope, dtype=torch.float64)
    x = nn.Parameter(torch.full_like(g, 2.0))
    return x, AdamW([("x", x)], engine="eager", **settings), lambda: (g * x).sum()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_first_step_has_the_size_of_lr_whatever_the_slope(scale: float) -> None:
    x, optimizer, closure = linear([scale, -3 * scale], lr=0.5, weight_decay=0.0, eps=0.0)
    optimizer.step(closure)
    np.testing.assert_allclose(x.tolist(), [1.5, 2.5], rtol=1e-12)


def test_bias_correction_keeps_a_constant_slope_at_the_size_of_lr() -> None:
    x, optimizer, closure = linear([7.0], lr=0.01, weight_decay=0.0, eps=0.0)
    for step in range(1, 60):
        optimizer.step(closure)
        assert x.item() == pytest.approx(2.0 - 0.01 * step, rel=1e-12)


def test_no_memory_divides_each_slope_by_its_own_size() -> None:
    params, closure = bend()
    optimizer = AdamW(
        params.items(), lr=0.01, betas=(0.0, 0.0), eps=1e-3, weight_decay=0.0, engine="eager"
    )
    for _ in range(10):
        values = {name: p.detach().numpy().copy() for name, p in params.items()}
        optimizer.step(closure)
        for name, g in slopes(values).items():
            expected = values[name] - 0.01 * g / (np.abs(g) + 1e-3)
            np.testing.assert_allclose(params[name].detach().numpy(), expected, rtol=1e-11)


def test_decay_is_decoupled_from_the_slope() -> None:
    """Where the slope is zero the weights shrink by lr * weight_decay, nothing else."""
    x, optimizer, closure = linear([0.0], lr=0.1, weight_decay=0.5)
    for step in range(1, 8):
        optimizer.step(closure)
        assert x.item() == pytest.approx(2.0 * 0.95**step, rel=1e-13)


def test_eps_stands_outside_the_root() -> None:
    x, optimizer, closure = linear([1.0], lr=1.0, eps=1.0, weight_decay=0.0)
    optimizer.step(closure)
    assert x.item() == pytest.approx(2.0 - 1.0 / (1.0 + 1.0), rel=1e-13)


# Words and numbers -----------------------------------------------------------------------------


def test_asks_for_one_gradient_a_step() -> None:
    params, closure = bend()
    runs = 0

    def counted() -> Tensor:
        nonlocal runs
        runs += 1
        return closure()

    optimizer = AdamW(params.items(), engine="eager")
    for step in range(1, 6):
        optimizer.step(counted)
        calls = optimizer.calls.to_dict()
        assert runs == step
        assert calls.pop("seconds") > 0
        assert {name: count for name, count in calls.items() if count} == {"grads": step}


def test_keeps_two_buffers() -> None:
    params, closure = bend()
    optimizer = AdamW(params.items(), engine="eager")
    optimizer.step(closure)
    for p in params.values():
        state = optimizer.state[p]
        assert set(state) == {"step", "exp_avg", "exp_avg_sq"}
        assert all(state[name].shape == p.shape for name in ("exp_avg", "exp_avg_sq"))


@pytest.mark.parametrize(
    "settings",
    [
        {"betas": (1.0, 0.9)},
        {"betas": (0.9, -0.1)},
        {"betas": 0.9},
        {"betas": (0.9,)},
        {"eps": -1e-8},
        {"weight_decay": -1.0},
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(HyperError, match=name):
        AdamW([nn.Parameter(torch.ones(1))], **settings)


# The contract ----------------------------------------------------------------------------------


class TestContract(MethodContract):
    method = AdamW
    reference_settings = (
        {},
        {"lr": 0.03, "betas": (0.8, 0.95), "eps": 0.01, "weight_decay": 0.3},
        {"lr": 0.02, "betas": (0.0, 0.5), "weight_decay": 0.0},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        groups = dict.fromkeys(values, options)
        return by_hand(values, groups, world.gradient, steps, lambda step: 1.0)

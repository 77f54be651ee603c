"""Lion: the published program in plain loops, limit cases, and the box it keeps to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyorder.hyper import HyperError
from anyorder.methods.adamw import AdamW
from anyorder.methods.lion import Lion
from anyorder.testing import MethodContract, Values, World
from anyorder.testing.worlds import bend, slopes

STEPS = 60


def schedule(step: int) -> float:
    """A cosine to nearly zero."""
    return (1 + math.cos(math.pi * step / STEPS)) / 2


def sign(x: float) -> float:
    return 0.0 if x == 0 else math.copysign(1.0, x)


def by_hand(
    values: Values,
    settings: Mapping[str, Mapping[str, Any]],
    gradient_at: Callable[[Values], Values] = slopes,
    steps: int = STEPS,
    schedule: Callable[[int], float] = schedule,
) -> Values:
    """Program 1 of Chen et al. (2023), one element at a time, memory starting at zero."""
    values = {name: value.copy() for name, value in values.items()}
    memory = {name: np.zeros_like(value) for name, value in values.items()}
    for step in range(steps):
        gradient = gradient_at(values)
        for name, value in values.items():
            s = settings[name]
            (b1, b2), lr = s["betas"], s["lr"] * schedule(step)
            for place in np.ndindex(value.shape):
                g, m = gradient[name][place], memory[name][place]
                update = sign(b1 * m + (1 - b1) * g)
                value[place] -= lr * (update + s["weight_decay"] * value[place])
                memory[name][place] = b2 * m + (1 - b2) * g
    return values


@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.95, 0.98), (0.0, 0.5), (0.7, 0.7), (0.5, 0.0)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_equals_the_program_element_by_element(
    betas: tuple[float, float], weight_decay: float
) -> None:
    params, closure = bend()
    groups: dict[str, dict[str, Any]] = {
        "matrix": {"lr": 0.011, "betas": betas, "weight_decay": weight_decay},
        "vector": {"lr": 0.007, "betas": (0.9, 0.99), "weight_decay": weight_decay / 2},
    }
    start = {name: p.detach().numpy().copy() for name, p in params.items()}
    expected = by_hand(start, groups)
    optimizer = Lion(
        [{"params": [(name, p)], **groups[name]} for name, p in params.items()], engine="eager"
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    for _ in range(STEPS):
        optimizer.step(closure)
        scheduler.step()
    for name, p in params.items():
        np.testing.assert_allclose(p.detach().numpy(), expected[name], rtol=1e-11, atol=1e-13)
        assert not np.allclose(expected[name], start[name], rtol=1e-2)


# Limit cases -----------------------------------------------------------------------------------


def linear(
    slope: list[float], dtype: torch.dtype = torch.float64, **settings: Any
) -> tuple[Tensor, Lion, Callable[[], Tensor]]:
    """A loss of constant slope from x = 2."""
    g = torch.tensor(slope, dtype=dtype)
    x = nn.Parameter(torch.full_like(g, 2.0))
    return x, Lion([("x", x)], engine="eager", **settings), lambda: (g * x).sum()


def test_no_memory_is_descent_along_signs() -> None:
    params, closure = bend()
    optimizer = Lion(params.items(), lr=0.01, betas=(0.0, 0.0), engine="eager")
    for _ in range(30):
        values = {name: p.detach().numpy().copy() for name, p in params.items()}
        optimizer.step(closure)
        for name, g in slopes(values).items():
            expected = values[name] - 0.01 * np.sign(g)
            np.testing.assert_allclose(params[name].detach().numpy(), expected, rtol=1e-13)


def test_equal_betas_are_signs_of_one_moving_average() -> None:
    """With beta1 = beta2 the mixture is the new memory: signed momentum."""
    params, closure = bend()
    optimizer = Lion(params.items(), lr=0.01, betas=(0.8, 0.8), engine="eager")
    for _ in range(30):
        values = {name: p.detach().numpy().copy() for name, p in params.items()}
        optimizer.step(closure)
        for name, p in params.items():
            memory = optimizer.state[p]["exp_avg"].numpy()
            expected = values[name] - 0.01 * np.sign(memory)
            np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-13)


def test_first_step_moves_every_coordinate_by_lr() -> None:
    x, optimizer, closure = linear([1e-30, -4.0, 1e30], lr=0.25)
    optimizer.step(closure)
    assert x.tolist() == [1.75, 2.25, 1.75]


def test_where_slope_and_memory_are_zero_nothing_moves() -> None:
    x, optimizer, closure = linear([0.0, 1.0], lr=0.25)
    for _ in range(4):
        optimizer.step(closure)
    assert x.tolist() == [2.0, 1.0]


def test_memory_outlives_the_slope() -> None:
    """A single gradient keeps moving its coordinate for as long as memory is not zero."""
    x, optimizer, closure = linear([1.0], lr=0.25)
    optimizer.step(closure)
    for step in range(2, 6):
        optimizer.step(lambda: 0.0 * closure())
        assert x.item() == 2.0 - 0.25 * step


@pytest.mark.parametrize("factor", [2.0**-20, 2.0**20])
def test_size_of_the_loss_does_not_matter(factor: float) -> None:
    """A factor that rounds nothing changes no bit of the run."""
    runs: list[list[Tensor]] = []
    for scale in (1.0, factor):
        params, closure = bend()
        optimizer = Lion(params.items(), lr=0.02, weight_decay=0.1, engine="eager")
        for _ in range(30):
            optimizer.step(lambda: closure() * scale)  # noqa: B023 - used within the loop
        runs.append([p.detach() for p in params.values()])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_decay_is_decoupled_from_the_slope() -> None:
    x, optimizer, closure = linear([0.0], lr=0.1, weight_decay=0.5)
    for step in range(1, 8):
        optimizer.step(closure)
        assert x.item() == pytest.approx(2.0 * 0.95**step, rel=1e-13)


def test_weights_are_drawn_into_the_box_of_the_decay() -> None:
    """Lion solves min f within |x| <= 1 / weight_decay: the distance falls by 1 - lr wd a step."""
    lr, decay = 0.05, 2.0
    x, optimizer, closure = linear([-1.0, 5.0], lr=lr, weight_decay=decay)
    outside = [max(v - 1 / decay, 0.0) for v in x.abs().tolist()]
    for _ in range(200):
        optimizer.step(closure)
        now = [max(v - 1 / decay, 0.0) for v in x.abs().tolist()]
        assert all(a <= b * (1 - lr * decay) + 1e-12 for a, b in zip(now, outside, strict=True))
        outside = now
    np.testing.assert_allclose(x.tolist(), [0.5, -0.5], rtol=1e-6)


# Words and numbers -----------------------------------------------------------------------------


def test_asks_for_one_gradient_a_step() -> None:
    params, closure = bend()
    runs = 0

    def counted() -> Tensor:
        nonlocal runs
        runs += 1
        return closure()

    optimizer = Lion(params.items(), engine="eager")
    for step in range(1, 6):
        optimizer.step(counted)
        calls = optimizer.calls.to_dict()
        assert runs == step
        assert calls.pop("seconds") > 0
        assert {name: count for name, count in calls.items() if count} == {"grads": step}


def test_keeps_half_the_state_of_adam() -> None:
    def state_bytes(method: type[Any]) -> int:
        params, closure = bend()
        optimizer = method(params.items(), engine="eager")
        optimizer.step(closure)
        tensors = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
        return sum(t.numel() * t.element_size() for t in tensors)

    elements = sum(p.numel() for p in bend()[0].values())
    assert state_bytes(Lion) * 2 == state_bytes(AdamW) == 2 * 8 * elements


def test_half_precision_keeps_its_memory_in_float32() -> None:
    """Mixing in bfloat16 would lose 1 % of a slope beside 99 % of memory."""
    x, optimizer, closure = linear([1.0], dtype=torch.bfloat16, lr=0.25)
    for _ in range(3):
        optimizer.step(closure)
    memory = optimizer.state[x]["exp_avg"]
    assert memory.dtype is torch.float32
    assert memory.item() == pytest.approx(1 - 0.99**3, rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{"betas": (0.9, 1.0)}, {"betas": (-0.1, 0.9)}, {"weight_decay": -1.0}, {"lr": -1.0}],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(HyperError, match=name):
        Lion([nn.Parameter(torch.ones(1))], **settings)


# The contract ----------------------------------------------------------------------------------


class TestContract(MethodContract):
    method = Lion
    reference_settings = (
        {},
        {"lr": 0.013, "betas": (0.7, 0.9), "weight_decay": 0.5},
        {"lr": 0.01, "betas": (0.95, 0.0), "weight_decay": 0.1},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        groups = dict.fromkeys(values, options)
        return by_hand(values, groups, world.gradient, steps, lambda step: 1.0)

"""EXAdam: both versions in plain loops, limit cases, and the same run as pytorch_optimizer's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyorder.hyper import HyperError
from anyorder.methods.exadam import EXAdam
from anyorder.testing import MethodContract, Values, World
from anyorder.testing.worlds import bend, slopes

STEPS = 40


def schedule(step: int) -> float:
    """Warm-up from zero, then a cosine."""
    return min(step / 5, 1.0) * (1 + math.cos(0.1 * step)) / 2


def by_hand(
    values: Values,
    settings: Mapping[str, Mapping[str, Any]],
    version: int,
    gradient_at: Callable[[Values], Values] = slopes,
    steps: int = STEPS,
    schedule: Callable[[int], float] = schedule,
) -> Values:
    """Algorithm 1 of Adly (2024), one element at a time, with the decay of the authors' program."""
    values = {name: value.copy() for name, value in values.items()}
    m = {name: np.zeros_like(value) for name, value in values.items()}
    v = {name: np.zeros_like(value) for name, value in values.items()}
    for t in range(1, steps + 1):
        gradient = gradient_at(values)
        for name, value in values.items():
            s = settings[name]
            (b1, b2), lr, eps = s["betas"], s["lr"] * schedule(t - 1), s["eps"]
            alpha = lr * math.log(math.sqrt(t + 1) * math.sqrt(2)) if version == 1 else lr
            for place in np.ndindex(value.shape):
                g = gradient[name][place]
                value[place] -= lr * s["weight_decay"] * value[place]
                m[name][place] = b1 * m[name][place] + (1 - b1) * g
                v[name][place] = b2 * v[name][place] + (1 - b2) * g * g
                mean, square = m[name][place], v[name][place]
                d1 = 1 + square / (square + eps) * b2**t
                d2 = 1 + mean**2 / (mean**2 + eps) * b1**t
                m_tilde, g_tilde = mean / (1 - b1**t) * d1, s["boost"] * g / (1 - b1**t) * d1
                v_tilde = square / (1 - b2**t) * d2
                value[place] -= alpha * (m_tilde + g_tilde) / (math.sqrt(v_tilde) + eps)
    return values


# The formulas ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.9), (0.5, 0.3), (0.95, 0.5)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_equals_the_formulas_element_by_element(
    version: int, betas: tuple[float, float], weight_decay: float
) -> None:
    params, closure = bend()
    groups: dict[str, dict[str, Any]] = {
        "matrix": {"lr": 0.01, "betas": betas, "eps": 1e-8, "weight_decay": weight_decay},
        "vector": {"lr": 0.02, "betas": (0.8, 0.99), "eps": 1e-2, "weight_decay": weight_decay / 3},
    }
    start = {name: p.detach().numpy().copy() for name, p in params.items()}
    plain = {name: {"boost": 1.0, **s} for name, s in groups.items()}
    expected = by_hand(start, plain, version)
    optimizer = EXAdam(
        [{"params": [(name, p)], **groups[name]} for name, p in params.items()],
        version=version,
        engine="eager",
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    for _ in range(STEPS):
        optimizer.step(closure)
        scheduler.step()
    for name, p in params.items():
        np.testing.assert_allclose(p.detach().numpy(), expected[name], rtol=1e-9, atol=1e-12)
        assert not np.allclose(expected[name], start[name], rtol=1e-2)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_takes_the_same_run_as_pytorch_optimizer(weight_decay: float) -> None:
    """The peer has version 2."""
    peer = pytest.importorskip("pytorch_optimizer", reason="pytorch_optimizer is not installed")
    ours, closure = bend()
    theirs, other = bend()
    a = EXAdam(ours.items(), lr=0.01, weight_decay=weight_decay, engine="eager")
    b = peer.EXAdam(list(theirs.values()), lr=0.01, weight_decay=weight_decay)
    for _ in range(STEPS):
        a.step(closure)
        b.zero_grad()
        other().backward()
        b.step()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-11, atol=1e-13)


# Limit cases -----------------------------------------------------------------------------------


def linear(slope: list[float], **settings: Any) -> tuple[Tensor, EXAdam, Callable[[], Tensor]]:
    """A loss of constant slope from x = 2."""
    g = torch.tensor(slope, dtype=torch.float64)
    x = nn.Parameter(torch.full_like(g, 2.0))
    return x, EXAdam([("x", x)], engine="eager", **settings), lambda: (g * x).sum()


def test_default_is_the_second_version() -> None:
    x, optimizer, closure = linear([1.0], lr=0.1)
    y, second, other = linear([1.0], lr=0.1, version=2)
    optimizer.step(closure)
    second.step(other)
    assert torch.equal(x, y)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_first_step_is_eight_times_that_of_adam(version: int, scale: float) -> None:
    """d1 = 1.999 and m + g = 1.1 g over 1 - beta1 = 0.1, against a root of d2 = 1.9."""
    x, optimizer, closure = linear([scale, -3 * scale], lr=0.01, version=version)
    optimizer.step(closure)
    growth = math.log(2) if version == 1 else 1.0
    step = 0.01 * growth * 1.999 * 11 / math.sqrt(1.9)
    np.testing.assert_allclose(x.tolist(), [2.0 - step, 2.0 + step], rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 9, 99])
def test_versions_differ_by_the_growing_step_alone(steps: int) -> None:
    """With a constant slope the direction is the same, so single moves compare."""
    moves: list[float] = []
    for version in (1, 2):
        x, optimizer, closure = linear([0.7], lr=1e-3, version=version)
        for _ in range(steps - 1):
            optimizer.step(closure)
        before = x.item()
        optimizer.step(closure)
        moves.append(x.item() - before)
    assert moves[0] / moves[1] == pytest.approx(0.5 * math.log(2 * (steps + 1)), rel=1e-9)


def test_without_boost_and_corrections_it_is_adam() -> None:
    """With a huge eps in the ratios there are no corrections; boost 0 leaves the gradient out.

    Then a step is m over eps up to the size of the second moment, as Adam's with that eps.
    """
    ours, closure = bend()
    theirs, other = bend()
    a = EXAdam(ours.items(), lr=0.05e9, eps=1e9, boost=0.0, engine="eager")
    b = torch.optim.Adam(theirs.values(), lr=0.05e9, eps=1e9)
    for _ in range(30):
        a.step(closure)
        b.zero_grad()
        other().backward()
        b.step()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-6, atol=1e-7)


def test_boost_adds_its_multiple_of_the_gradient() -> None:
    moves: list[float] = []
    for boost in (0.0, 1.0, 2.0):
        x, optimizer, closure = linear([0.3], lr=1e-3, boost=boost)
        optimizer.step(closure)
        moves.append(2.0 - x.item())
    assert moves[2] - moves[1] == pytest.approx(moves[1] - moves[0], rel=1e-9)
    assert moves[1] / moves[0] == pytest.approx(11.0, rel=1e-9)  # g beside m = 0.1 g


def test_steady_state_takes_twice_the_step_of_adam() -> None:
    """With short memories both corrections are gone after 200 steps; m + g = 2 g remains."""
    x, optimizer, closure = linear([5.0], lr=1e-3, betas=(0.9, 0.9))
    for _ in range(200):
        optimizer.step(closure)
    before = x.item()
    optimizer.step(closure)
    assert before - x.item() == pytest.approx(2e-3, rel=1e-7)


def test_small_gradients_switch_the_corrections_off() -> None:
    """Unlike Adam, the method depends on the scale of the loss."""
    steps: list[float] = []
    for slope in (1.0, 1e-6):
        x, optimizer, closure = linear([slope], lr=1e-3)
        optimizer.step(closure)
        steps.append(2.0 - x.item())
    assert steps[0] == pytest.approx(1e-3 * 1.999 * 11 / math.sqrt(1.9), rel=1e-5)
    assert steps[1] == pytest.approx(1e-3 * 11 / 1.01, rel=1e-3)  # 1.01: eps is 1 % of the slope


def test_decay_is_decoupled_and_does_not_grow() -> None:
    x, optimizer, closure = linear([0.0], lr=0.1, weight_decay=0.5, version=1)
    for step in range(1, 8):
        optimizer.step(closure)
        assert x.item() == pytest.approx(2.0 * 0.95**step, rel=1e-13)


# Words and numbers -----------------------------------------------------------------------------


def test_asks_for_one_gradient_a_step() -> None:
    params, closure = bend()
    runs = 0

    def counted() -> Tensor:
        nonlocal runs
        runs += 1
        return closure()

    optimizer = EXAdam(params.items(), engine="eager")
    for step in range(1, 6):
        optimizer.step(counted)
        calls = optimizer.calls.to_dict()
        assert runs == step
        assert calls.pop("seconds") > 0
        assert {name: count for name, count in calls.items() if count} == {"grads": step}


def test_keeps_two_buffers_of_which_one_is_never_negative() -> None:
    params, closure = bend()
    optimizer = EXAdam(params.items(), engine="eager")
    for _ in range(5):
        optimizer.step(closure)
    for p in params.values():
        state = optimizer.state[p]
        assert set(state) == {"step", "exp_avg", "exp_avg_sq"}
        assert all(state[name].shape == p.shape for name in ("exp_avg", "exp_avg_sq"))
        assert bool((state["exp_avg_sq"] >= 0).all())
    assert EXAdam.nonnegative == {"exp_avg_sq"}


@pytest.mark.parametrize(
    "settings",
    [
        {"betas": (1.0, 0.9)},
        {"betas": (0.9,)},
        {"eps": 0.0},
        {"boost": -1.0},
        {"version": 3},
        {"weight_decay": -1.0},
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(HyperError, match=name):
        EXAdam([nn.Parameter(torch.ones(1))], **settings)


# The contract ----------------------------------------------------------------------------------


class TestContract(MethodContract):
    method = EXAdam
    reference_settings = (
        {},
        {"lr": 0.01, "betas": (0.8, 0.95), "eps": 0.01, "weight_decay": 0.3, "version": 1},
        {"lr": 0.01, "betas": (0.5, 0.3), "eps": 1.0, "boost": 0.5},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        groups = dict.fromkeys(values, options)
        return by_hand(values, groups, options["version"], world.gradient, steps, lambda step: 1.0)

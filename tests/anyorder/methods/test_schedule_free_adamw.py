"""Schedule-free AdamW: three sequences in plain loops, limit cases, the authors' package."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyorder.hyper import HyperError
from anyorder.methods.schedule_free_adamw import ScheduleFreeAdamW
from anyorder.testing import MethodContract, Values, World

STEPS = 40
BETAS = [(0.9, 0.999), (0.98, 0.99), (0.5, 0.99)]


def bend() -> tuple[dict[str, nn.Parameter], Callable[[], Tensor]]:
    """A curved function of a matrix and a vector."""
    rng = np.random.default_rng(6)
    params = {
        "matrix": nn.Parameter(torch.tensor(rng.normal(size=(3, 2)))),
        "vector": nn.Parameter(torch.tensor(rng.normal(size=4))),
    }

    def closure() -> Tensor:
        m, v = params["matrix"], params["vector"]
        return (m**4).sum() / 4 + (v**2).sum() * 3 + (m.sum() - v.sum()) ** 2 / 2

    return params, closure


def slopes(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The gradient of :func:`bend` by hand."""
    gap = values["matrix"].sum() - values["vector"].sum()
    return {"matrix": values["matrix"] ** 3 + gap, "vector": 6 * values["vector"] - gap}


def by_hand(
    start: Values,
    settings: Mapping[str, Mapping[str, Any]],
    gradient_at: Callable[[Values], Values] = slopes,
    steps: int = STEPS,
) -> tuple[Values, Values]:
    """The points y and x of Defazio et al. (2024), with z, x and y kept as they are defined."""
    z = {name: value.copy() for name, value in start.items()}
    x = {name: value.copy() for name, value in start.items()}
    v = {name: np.zeros_like(value) for name, value in start.items()}
    total = dict.fromkeys(start, 0.0)

    def between() -> Values:
        b = {name: settings[name]["betas"][0] for name in start}
        return {name: (1 - b[name]) * z[name] + b[name] * x[name] for name in start}

    for t in range(1, steps + 1):
        y = between()
        gradient = gradient_at(y)
        for name, s in settings.items():
            lr = s["lr"] * min(1.0, t / s["warmup"]) if s["warmup"] else s["lr"]
            total[name] += lr**2
            c = lr**2 / total[name]
            for place in np.ndindex(z[name].shape):
                g = gradient[name][place]
                v[name][place] = s["betas"][1] * v[name][place] + (1 - s["betas"][1]) * g * g
                root = math.sqrt(v[name][place] / (1 - s["betas"][1] ** t))
                z[name][place] -= (
                    lr * g / (root + s["eps"]) + lr * s["weight_decay"] * y[name][place]
                )
                x[name][place] = (1 - c) * x[name][place] + c * z[name][place]
    return between(), x


def answers(optimizer: ScheduleFreeAdamW, params: dict[str, nn.Parameter]) -> Values:
    with optimizer.answer():
        return {name: p.detach().numpy().copy() for name, p in params.items()}


# The formulas ----------------------------------------------------------------------------------


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("warmup", [0, 7, 100])
def test_equals_the_three_sequences_element_by_element(
    betas: tuple[float, float], decay: float, warmup: int
) -> None:
    params, closure = bend()
    groups: dict[str, dict[str, Any]] = {
        "matrix": {
            "lr": 0.02,
            "betas": betas,
            "eps": 1e-8,
            "weight_decay": decay,
            "warmup": warmup,
        },
        "vector": {
            "lr": 0.05,
            "betas": (0.8, 0.9),
            "eps": 1e-2,
            "weight_decay": 0.1,
            "warmup": 3,
        },
    }
    start = {name: p.detach().numpy().copy() for name, p in params.items()}
    y, x = by_hand(start, groups)
    optimizer = ScheduleFreeAdamW(
        [{"params": [(name, p)], **groups[name]} for name, p in params.items()], engine="eager"
    )
    for _ in range(STEPS):
        optimizer.step(closure)
    found = answers(optimizer, params)
    for name, p in params.items():
        np.testing.assert_allclose(p.detach().numpy(), y[name], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found[name], x[name], rtol=1e-9, atol=1e-12)
        assert not np.allclose(x[name], y[name], rtol=1e-3)


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("warmup", [0, 7])
def test_takes_the_same_run_as_the_authors_package(
    betas: tuple[float, float], decay: float, warmup: int
) -> None:
    package = pytest.importorskip("schedulefree", reason="schedulefree is not installed")
    ours, closure = bend()
    theirs, other = bend()
    a = ScheduleFreeAdamW(
        ours.items(), lr=0.01, betas=betas, weight_decay=decay, warmup=warmup, engine="eager"
    )
    b = package.AdamWScheduleFree(
        list(theirs.values()), lr=0.01, betas=betas, weight_decay=decay, warmup_steps=warmup
    )
    b.train()
    for _ in range(STEPS):
        a.step(closure)
        b.zero_grad()
        other().backward()
        b.step()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-10, atol=1e-12)
    b.eval()
    found = answers(a, ours)
    for name, p in theirs.items():
        np.testing.assert_allclose(found[name], p.detach().numpy(), rtol=1e-10, atol=1e-12)


# Limit cases -----------------------------------------------------------------------------------


def linear(
    slope: list[float], **settings: Any
) -> tuple[nn.Parameter, ScheduleFreeAdamW, Callable[[], Tensor]]:
    """A loss of constant slope from x = 2."""
    g = torch.tensor(slope, dtype=torch.float64)
    x = nn.Parameter(torch.full_like(g, 2.0))
    return x, ScheduleFreeAdamW([("x", x)], engine="eager", **settings), lambda: (g * x).sum()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_first_step_is_that_of_adam_whatever_the_slope(scale: float) -> None:
    """The first average is the first point, so x, y and z coincide."""
    x, optimizer, closure = linear([scale, -3 * scale], lr=0.5, eps=0.0)
    optimizer.step(closure)
    np.testing.assert_allclose(x.tolist(), [1.5, 2.5], rtol=1e-12)
    with optimizer.answer():
        np.testing.assert_allclose(x.tolist(), [1.5, 2.5], rtol=1e-12)


def test_answer_is_the_mean_of_the_points_of_adam() -> None:
    """A constant slope moves z by lr a step; equal step sizes weigh alike, whatever beta1."""
    for beta1 in (0.1, 0.9):
        x, optimizer, closure = linear([3.0], lr=0.01, betas=(beta1, 0.9), eps=0.0)
        for step in range(1, 30):
            optimizer.step(closure)
            z = 2.0 - 0.01 * step
            mean = 2.0 - 0.01 * (step + 1) / 2
            assert x.item() == pytest.approx((1 - beta1) * z + beta1 * mean, rel=1e-12)
            with optimizer.answer():
                assert x.item() == pytest.approx(mean, rel=1e-12)


def test_warm_up_weighs_points_by_their_squared_step_size() -> None:
    x, optimizer, closure = linear([1.0], lr=0.1, warmup=4, eps=0.0)
    rates = [0.025, 0.05, 0.075, 0.1, 0.1, 0.1]
    for _ in rates:
        optimizer.step(closure)
    points = 2.0 - np.cumsum(rates)
    with optimizer.answer():
        assert x.item() == pytest.approx(np.average(points, weights=np.square(rates)), rel=1e-12)


def test_a_schedule_lowers_the_weight_of_its_points() -> None:
    x, optimizer, closure = linear([1.0], lr=0.1, eps=0.0)
    rates = [0.1, 0.05, 0.0, 0.02]
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step(closure)
    points = 2.0 - np.cumsum(rates)
    with optimizer.answer():
        assert x.item() == pytest.approx(np.average(points, weights=np.square(rates)), rel=1e-12)


def test_decay_acts_on_z_by_way_of_y() -> None:
    """Without a slope: z falls by lr decay y, x follows as its average, y lies between."""
    lr, decay, beta = 0.1, 0.5, 0.9
    x, optimizer, closure = linear([0.0], lr=lr, weight_decay=decay, betas=(beta, 0.99))
    z = mean = y = 2.0
    for step in range(1, 20):
        optimizer.step(closure)
        z -= lr * decay * y
        mean += (z - mean) / step
        y = (1 - beta) * z + beta * mean
        assert x.item() == pytest.approx(y, rel=1e-12)


def test_answer_leaves_everything_as_it_was() -> None:
    params, closure = bend()
    optimizer = ScheduleFreeAdamW(params.items(), lr=0.05, engine="eager")
    for _ in range(5):
        optimizer.step(closure)
    before = {name: p.detach().clone() for name, p in params.items()}
    saved = {name: v.clone() for name, v in optimizer.buffer("ahead").items()}
    with optimizer.answer():
        assert not any(torch.equal(p, before[name]) for name, p in params.items())
    assert all(torch.equal(p, before[name]) for name, p in params.items())
    assert all(torch.equal(v, saved[name]) for name, v in optimizer.buffer("ahead").items())


def test_answer_before_the_first_step_is_the_start() -> None:
    params, _ = bend()
    start = {name: p.detach().numpy().copy() for name, p in params.items()}
    found = answers(ScheduleFreeAdamW(params.items(), engine="eager"), params)
    for name, value in start.items():
        np.testing.assert_array_equal(found[name], value)


def test_average_goes_on_from_a_checkpoint() -> None:
    ours, closure = bend()
    first = ScheduleFreeAdamW(ours.items(), lr=0.05, warmup=6, engine="eager")
    for _ in range(4):
        first.step(closure)
    theirs, other = bend()
    for name, p in theirs.items():
        p.data.copy_(ours[name].data)
    second = ScheduleFreeAdamW(theirs.items(), engine="eager")
    second.load_state_dict(first.state_dict())
    for _ in range(4):
        first.step(closure)
        second.step(other)
    expected, found = answers(first, ours), answers(second, theirs)
    for name in ours:
        np.testing.assert_array_equal(found[name], expected[name])


# Words and numbers -----------------------------------------------------------------------------


def test_asks_for_one_gradient_a_step() -> None:
    params, closure = bend()
    runs = 0

    def counted() -> Tensor:
        nonlocal runs
        runs += 1
        return closure()

    optimizer = ScheduleFreeAdamW(params.items(), engine="eager")
    for step in range(1, 6):
        optimizer.step(counted)
        with optimizer.answer():
            pass
        calls = optimizer.calls.to_dict()
        assert runs == step
        assert calls.pop("seconds") > 0
        assert {name: count for name, count in calls.items() if count} == {"grads": step}


def test_keeps_two_buffers_of_which_one_is_never_negative() -> None:
    params, closure = bend()
    optimizer = ScheduleFreeAdamW(params.items(), engine="eager")
    optimizer.step(closure)
    for p in params.values():
        assert set(optimizer.state[p]) == {"step", "ahead", "exp_avg_sq"}
        assert bool((optimizer.state[p]["exp_avg_sq"] >= 0).all())
    assert ScheduleFreeAdamW.nonnegative == {"exp_avg_sq"}


@pytest.mark.parametrize(
    "settings",
    [
        {"betas": (0.0, 0.9)},
        {"betas": (0.9, 1.0)},
        {"eps": -1e-8},
        {"weight_decay": -1.0},
        {"warmup": -1},
        {"warmup": 2.5},
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(HyperError, match=name):
        ScheduleFreeAdamW([nn.Parameter(torch.ones(1))], **settings)


# The contract ----------------------------------------------------------------------------------


class TestContract(MethodContract):
    method = ScheduleFreeAdamW
    reference_settings = (
        {},
        {"lr": 0.02, "betas": (0.8, 0.95), "eps": 0.01, "weight_decay": 0.3, "warmup": 7},
        {"lr": 0.05, "betas": (0.5, 0.9), "weight_decay": 0.1, "warmup": 100},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        return by_hand(values, dict.fromkeys(values, options), world.gradient, steps)[1]

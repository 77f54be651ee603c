"""SGD: its formulas in plain loops, limit cases, and the same run as torch.optim.SGD."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyorder.hyper import HyperError
from anyorder.methods.sgd import SGD
from anyorder.testing import MethodContract, Values, World

STEPS = 40


def schedule(step: int) -> float:
    """A step size that rises, falls and passes through zero."""
    return abs(np.sin(0.3 * step + 0.5)) if step % 7 else 0.0


def regression(dtype: torch.dtype = torch.float64) -> tuple[dict[str, nn.Parameter], Any]:
    """Least squares with a matrix and an offset; returns parameters and closure."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 2))
    params = {
        "matrix": nn.Parameter(torch.tensor(rng.normal(size=(3, 2)), dtype=dtype)),
        "offset": nn.Parameter(torch.tensor(rng.normal(size=2), dtype=dtype)),
    }
    inputs, targets = torch.tensor(x, dtype=dtype), torch.tensor(y, dtype=dtype)

    def closure() -> Tensor:
        return ((inputs @ params["matrix"] + params["offset"] - targets) ** 2).sum() / 8

    closure.data = (x, y)  # type: ignore[attr-defined]
    return params, closure


def slopes(values: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """The gradient of :func:`regression`, written out by hand."""
    residual = x @ values["matrix"] + values["offset"] - y
    return {"matrix": 2 * x.T @ residual / 8, "offset": 2 * residual.sum(0) / 8}


def by_hand(
    values: Values,
    gradient: Callable[[Values], Values],
    settings: Mapping[str, Mapping[str, Any]],
    steps: int = STEPS,
    schedule: Callable[[int], float] = schedule,
) -> Values:
    """Momentum descent, one element at a time (Sutskever et al., 2013, in the form of PyTorch).

    v_1 = g_1, then v = mu v + (1 - tau) g; x moves by -lr v, or by -lr (g + mu v) with Nesterov.
    """
    values = {name: value.copy() for name, value in values.items()}
    velocity: dict[tuple[str, Any], float] = {}
    for step in range(steps):
        slope = gradient(values)
        for name, value in values.items():
            s = settings[name]
            for place in np.ndindex(value.shape):
                g = slope[name][place] + s["weight_decay"] * value[place]
                if step == 0:
                    v = g
                else:
                    v = s["momentum"] * velocity[name, place] + (1 - s["dampening"]) * g
                velocity[name, place] = v
                move = g + s["momentum"] * v if s["nesterov"] else v
                if not s["momentum"]:
                    move = g
                value[place] -= s["lr"] * schedule(step) * move
    return values


GRID = [
    {"momentum": m, "dampening": d, "weight_decay": w, "nesterov": n}
    for m, d, w, n in itertools.product((0.0, 0.5, 0.9), (0.0, 0.3), (0.0, 0.1), (False, True))
    if not n or (m > 0 and d == 0)
]


def label(settings: dict[str, Any]) -> str:
    return " ".join(f"{name[0]}={value}" for name, value in settings.items())


# The formulas ----------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", GRID, ids=label)
def test_equals_the_formulas_element_by_element(settings: dict[str, Any]) -> None:
    params, closure = regression()
    groups: dict[str, dict[str, Any]] = {
        "matrix": {"lr": 0.05, **settings},
        "offset": {"lr": 0.1, **settings, "weight_decay": settings["weight_decay"] / 2},
    }
    start = {name: p.detach().numpy().copy() for name, p in params.items()}
    expected = by_hand(start, lambda v: slopes(v, *closure.data), groups)
    optimizer = SGD(
        [{"params": [(name, p)], **groups[name]} for name, p in params.items()], engine="eager"
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    for _ in range(STEPS):
        optimizer.step(closure)
        scheduler.step()
    for name, p in params.items():
        np.testing.assert_allclose(p.detach().numpy(), expected[name], rtol=1e-12, atol=1e-14)
        assert not np.allclose(expected[name], start[name], rtol=1e-3)


# torch.optim.SGD -------------------------------------------------------------------------------


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("settings", GRID, ids=label)
def test_takes_the_same_run_as_torch(settings: dict[str, Any], maximize: bool) -> None:
    ours, closure = regression()
    theirs, other = regression()
    lr = 1e-3 if maximize else 0.05
    a = SGD(ours.items(), lr=lr, engine="eager", maximize=maximize, **settings)
    b = torch.optim.SGD(theirs.values(), lr=lr, maximize=maximize, **settings)
    for _ in range(STEPS):
        loss = a.step(closure)
        b.zero_grad()
        value = other()
        value.backward()
        b.step()
        assert loss is not None
        torch.testing.assert_close(loss, value.detach(), rtol=1e-11, atol=0.0)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_takes_the_same_run_as_torch_on_a_network(dtype: torch.dtype) -> None:
    def network() -> nn.Module:
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2)).to(dtype)

    ours, theirs = network(), network()
    x, y = torch.randn(16, 5, dtype=dtype), torch.randn(16, 2, dtype=dtype)
    settings: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}
    a = SGD(ours, engine="eager", **settings)
    b = torch.optim.SGD(theirs.parameters(), **settings)
    for _ in range(50):
        a.step(lambda: nn.functional.mse_loss(ours(x), y))
        b.zero_grad()
        nn.functional.mse_loss(theirs(x), y).backward()
        b.step()
    exact = dtype is torch.float64
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(
            p, q, rtol=1e-11 if exact else 1e-4, atol=1e-13 if exact else 1e-6
        )


# Limit cases -----------------------------------------------------------------------------------


def linear(slope: list[float], **settings: Any) -> tuple[Tensor, SGD, Callable[[], Tensor]]:
    """A loss of constant slope."""
    g = torch.tensor(slope, dtype=torch.float64)
    x = nn.Parameter(torch.zeros_like(g))
    return x, SGD([("x", x)], engine="eager", **settings), lambda: (g * x).sum()


def test_no_momentum_descends_the_slope_and_keeps_nothing() -> None:
    x, optimizer, closure = linear([3.0, -2.0], lr=0.5)
    for step in range(1, 6):
        optimizer.step(closure)
        assert x.tolist() == [-1.5 * step, 1.0 * step]
    assert set(optimizer.state[x]) == {"step"}


@pytest.mark.parametrize("dampening", [0.0, 0.4, 1.0])
def test_first_velocity_is_the_gradient_whatever_the_dampening(dampening: float) -> None:
    x, optimizer, closure = linear([3.0, -2.0], lr=0.5, momentum=0.9, dampening=dampening)
    optimizer.step(closure)
    assert x.tolist() == [-1.5, 1.0]
    assert set(optimizer.state[x]) == {"step", "momentum_buffer"}


def test_velocity_of_a_constant_slope_is_a_geometric_sum() -> None:
    mu, tau = 0.8, 0.25
    x, optimizer, closure = linear([2.0], lr=1.0, momentum=mu, dampening=tau)
    for step in range(1, 30):
        optimizer.step(closure)
        powers = sum(mu**i for i in range(step - 1))
        expected = 2.0 * (mu ** (step - 1) + (1 - tau) * powers)
        assert optimizer.state[x]["momentum_buffer"].item() == pytest.approx(expected, rel=1e-13)


def test_full_dampening_keeps_the_first_gradient_alone() -> None:
    x, optimizer, closure = linear([1.0], lr=1.0, momentum=0.5, dampening=1.0)
    for step in range(1, 12):
        optimizer.step(closure)
        assert optimizer.state[x]["momentum_buffer"].item() == 0.5 ** (step - 1)


def test_weight_decay_is_a_penalty_on_the_gradient() -> None:
    """Coupled: descending f with decay w is descending f + w |x|^2 / 2."""
    a, closure = regression()
    b, other = regression()
    first = SGD(a.items(), lr=0.05, momentum=0.9, weight_decay=0.2, engine="eager")
    second = SGD(b.items(), lr=0.05, momentum=0.9, engine="eager")
    for _ in range(STEPS):
        first.step(closure)
        second.step(lambda: other() + 0.1 * sum((p * p).sum() for p in b.values()))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-11, atol=1e-13)


def test_step_size_may_be_a_tensor() -> None:
    x, optimizer, closure = linear([4.0], lr=torch.tensor(0.25))
    optimizer.step(closure)
    assert x.tolist() == [-1.0]


def test_momentum_may_be_scheduled_from_and_to_zero() -> None:
    """Velocity starts with the first gradient it sees, as torch.optim has it."""
    ours, closure = regression()
    theirs, other = regression()
    a = SGD(ours.items(), lr=0.02, dampening=0.1, engine="eager")
    b = torch.optim.SGD(theirs.values(), lr=0.02, dampening=0.1)
    for step in range(20):
        for group in (*a.param_groups, *b.param_groups):
            group["momentum"] = 0.0 if step < 5 or step >= 15 else 0.5 + step / 30
        a.step(closure)
        b.zero_grad()
        other().backward()
        b.step()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-11, atol=1e-13)
    assert set(a.state[ours["matrix"]]) == {"step"}


# Words and numbers -----------------------------------------------------------------------------


def test_asks_for_one_gradient_a_step() -> None:
    params, closure = regression()
    runs = 0

    def counted() -> Tensor:
        nonlocal runs
        runs += 1
        return closure()

    optimizer = SGD(params.items(), momentum=0.9, engine="eager")
    for step in range(1, 6):
        optimizer.step(counted)
        calls = optimizer.calls.to_dict()
        assert runs == step
        assert calls.pop("seconds") > 0
        assert {name: count for name, count in calls.items() if count} == {"grads": step}


@pytest.mark.parametrize(
    "settings", [{"nesterov": True}, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}]
)
def test_nesterov_wants_momentum_and_no_dampening(settings: dict[str, Any]) -> None:
    x = nn.Parameter(torch.ones(1))
    with pytest.raises(HyperError, match="nesterov"):
        SGD([x], **settings)
    with pytest.raises(HyperError, match="nesterov"):
        SGD([{"params": [x], **settings}])


@pytest.mark.parametrize(
    "settings",
    [{"momentum": 1.0}, {"momentum": -0.1}, {"dampening": 1.1}, {"weight_decay": -1.0}, {"lr": -1}],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(HyperError, match=name):
        SGD([nn.Parameter(torch.ones(1))], **settings)


# The contract ----------------------------------------------------------------------------------


class TestContract(MethodContract):
    method = SGD
    reference_settings = (
        {},
        {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1},
        {"lr": 0.01, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.1},
        {"lr": 0.01, "momentum": 0.8, "nesterov": True},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        groups = dict.fromkeys(values, options)
        return by_hand(values, world.gradient, groups, steps, lambda step: 1.0)

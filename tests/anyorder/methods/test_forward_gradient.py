"""Forward gradient: exact derivatives, counted as such, of every kind of model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyorder import ForwardGradient
from anyorder.oracle import ClosureOracle, NeedsError
from anyorder.oracle.ledger import Budget, BudgetExhausted
from anyorder.points.directions import Seeded
from anyorder.testing import MethodContract, Values, World
from anyorder.testing.worlds import bend, net


def test_the_derivative_is_exact() -> None:
    """The step is -lr (z . grad f) z, without a perturbation size."""
    params, closure = bend()
    grads = torch.autograd.grad(closure(), list(params.values()))
    z = {name: Seeded(2, 0).tensor(name, p) for name, p in params.items()}
    slope = sum((g * z[name]).sum() for name, g in zip(params, grads, strict=True))
    expected = {name: p.detach() - 1e-3 * slope * z[name] for name, p in params.items()}
    optimizer = ForwardGradient(params.items(), lr=1e-3, seed=2, engine="eager")
    start = closure().item()
    assert optimizer.step(closure).item() == start
    for name, p in params.items():
        torch.testing.assert_close(p.detach(), expected[name], rtol=1e-12, atol=1e-12)


def models() -> dict[str, tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.3)
    return {
        "batch norm and dropout": (net()[0], torch.randn(16, 8)),
        "transformer": (encoder, torch.randn(2, 5, 8)),
        "convolution": (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()), torch.randn(2, 1, 5, 5)),
        "large": (nn.Linear(300, 200), torch.randn(3, 300)),
    }


@pytest.mark.parametrize("kind", models())
def test_it_is_that_of_backpropagation_at_the_same_dropout_mask(kind: str) -> None:
    model, x = models()[kind]
    model.double()
    closure = lambda: (model(x.double()) ** 2).mean()  # noqa: E731
    named = dict(model.named_parameters())
    oracle = ClosureOracle(closure, named, module=model)
    direction = Seeded(0, 0)
    torch.manual_seed(4)
    loss, slope = oracle.jvp(direction)
    torch.manual_seed(4)
    plain, grads = ClosureOracle(closure, named, module=model).grad()
    wanted = sum(
        (g * direction.tensor(n, g)).sum()
        for n, g in zip(named, grads, strict=True)
        if g is not None
    )
    assert torch.allclose(loss, plain, rtol=1e-6) and isinstance(wanted, Tensor)
    torch.testing.assert_close(slope, wanted, rtol=1e-6, atol=1e-8)
    assert (oracle.calls.jvps, oracle.calls.values, oracle.calls.forwards()) == (1, 0, 2.0)
    assert not any(p.grad is not None for p in named.values())


def test_mean_over_directions_is_the_gradient() -> None:
    params, closure = bend()
    grads = torch.autograd.grad(closure(), list(params.values()))
    n = 400
    before = {name: p.detach().clone() for name, p in params.items()}
    ForwardGradient(params.items(), lr=1.0, directions=n, engine="eager").step(closure)
    square = sum(float((g**2).sum()) for g in grads)
    for name, g in zip(params, grads, strict=True):
        error = before[name] - params[name].detach() - g
        assert bool((error.abs() < 5 * ((square + g**2) / n).sqrt()).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_stay_as_they_are_also_after_an_exception(dtype: torch.dtype) -> None:
    model, _ = net(dtype=dtype)
    x = torch.randn(16, 8, dtype=dtype)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = ForwardGradient(model, lr=0.0, engine="eager")
    for _ in range(3):
        optimizer.step(lambda: model(x).float().square().mean())

    def raising() -> Tensor:
        model(x)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(raising)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    optimizer.step(lambda: model(x).float().square().mean())
    assert optimizer.calls.jvps == 4


def test_budget_is_in_directional_derivatives_or_forwards() -> None:
    for budget in ("3jvps", Budget(forwards=6)):
        x = nn.Parameter(torch.ones(2))
        optimizer = ForwardGradient([x], budget=budget, engine="eager")
        for _ in range(3):
            optimizer.step(lambda x=x: (x**2).sum())  # type: ignore[misc]
        with pytest.raises(BudgetExhausted):
            optimizer.step(lambda x=x: (x**2).sum())  # type: ignore[misc]


def test_code_that_forward_mode_cannot_see_is_refused_and_unused_parameters_are_not() -> None:
    import warnings

    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Linear(2, 3))
    model = nn.ModuleDict({"plain": plain, "scripted": scripted})
    x = torch.randn(5, 4)
    optimizer = ForwardGradient(model, lr=1e-3, engine="eager")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(NeedsError, match=r"forward mode .* scripted\.weight.*MeZO"):
        optimizer.step(lambda: scripted(plain(x)).square().mean())
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    runs = 0

    def without() -> Tensor:
        nonlocal runs
        runs += 1
        return plain(x).square().mean()

    for _ in range(3):
        optimizer.step(without)
    assert (runs, optimizer.calls.jvps) == (4, 1 + 3)  # one more, to see that they are not used
    assert not torch.equal(plain[0].weight, before["plain.0.weight"])


class TestContract(MethodContract):
    method = ForwardGradient
    options: ClassVar[dict[str, Any]] = {}
    reference_settings = (
        {"lr": 1e-3},
        {"lr": 1e-3, "directions": 3, "weight_decay": 0.3, "seed": 4},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        for step in range(steps):
            grad = world.gradient(values)
            move = {name: np.zeros_like(x) for name, x in values.items()}
            for index in range(options["directions"]):
                direction = Seeded(options["seed"], step, index)
                z = {n: direction.tensor(n, torch.tensor(x)).numpy() for n, x in values.items()}
                slope = sum((grad[name] * z[name]).sum() for name in values)
                for name in values:
                    move[name] = move[name] + slope * z[name] / options["directions"]
            for name, x in values.items():
                decayed = x * (1 - options["lr"] * options["weight_decay"])
                values[name] = decayed - options["lr"] * move[name]
        return values

"""Optimizers with their own loop: the same as without us, counted, and never at a trial point."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor, nn

from anyorder.compare.plan.entrants import resolve
from anyorder.compare.plan.tools import _SCIPY
from anyorder.compare.run.adapter import adapt
from anyorder.compare.run.loops import Converged, Loop
from anyorder.oracle.ledger import Budget, BudgetExhausted

START = [-1.0, 0.5, 1.5]


class Valley(nn.Module):
    """The Rosenbrock function in float64, with the number of its calls as a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.tensor(START[:1], dtype=torch.float64))
        self.right = nn.Parameter(torch.tensor(START[1:], dtype=torch.float64))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self) -> Tensor:
        self.calls += 1
        x = torch.cat([self.left, self.right])
        return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()

    @property
    def point(self) -> list[float]:
        return [*self.left.tolist(), *self.right.tolist()]


def made(spec: str, budget: Budget | None = None, seed: int = 0, **sets: Any) -> tuple[Valley, Any]:
    entrant, model = resolve(spec, sets=sets), Valley()
    config = {each.name: each.default for each in entrant.space}
    return model, adapt(entrant, model, config, budget or Budget(), seed)


def finished(spec: str, budget: Budget, seed: int = 0, **sets: Any) -> tuple[Valley, Any]:
    model, adapted = made(spec, budget, seed, **sets)
    with pytest.raises(BudgetExhausted):
        while True:
            adapted.step(model)
    return model, adapted


def direct(method: str, steps: int) -> tuple[list[float], int, int]:
    """The iterate, losses and gradients of scipy itself after so many iterations."""
    model, counts, seen = Valley(), [0, 0], []
    uses = _SCIPY[method][0]

    def at(x: Any) -> Tensor:
        point = torch.tensor(x)
        model.left.data, model.right.data = point[:1], point[1:]
        return model()

    def gradients(loss: Tensor, **more: bool) -> Tensor:
        found = torch.autograd.grad(loss, [model.left, model.right], **more)
        return torch.cat(found)

    def loss(x: Any) -> float:
        counts[0] += 1
        return at(x).item()

    def gradient(x: Any) -> Any:
        counts[1] += 1
        return gradients(at(x)).numpy()

    def both(x: Any) -> Any:
        counts[1] += 1
        found = at(x)
        return found.item(), gradients(found).numpy()

    def product(x: Any, v: Any) -> Any:
        slope = gradients(at(x), create_graph=True)
        return gradients(slope @ torch.tensor(v, dtype=torch.float64)).numpy()

    def callback(x: Any, *state: Any) -> None:
        seen.append(x.tolist())
        if len(seen) == steps:
            raise EnoughError

    functions: dict[str, Any] = {"fun": loss}
    if uses in ("grad", "both"):
        functions = {"fun": both, "jac": True}
    if uses == "hessian":
        functions["jac"] = gradient
    if uses in ("both", "hessian"):
        functions["hessp"] = product
    with pytest.raises(EnoughError):
        optimize.minimize(x0=START, method=method, callback=callback, **functions)
    return seen[-1], counts[0], counts[1]


class EnoughError(Exception):
    pass


@pytest.mark.parametrize("method", list(_SCIPY))
def test_the_same_iterates_as_scipy_itself(method: str) -> None:
    model, adapted = made(f"scipy:{method}")
    for _ in range(6):
        adapted.step(model)
    point, values, grads = direct(method, 6)
    assert model.point == pytest.approx(point, rel=1e-9)
    assert adapted.calls.values == values
    if _SCIPY[method][0] in ("value", "grad"):
        assert adapted.calls.grads == grads
        assert model.point == point


def test_the_same_result_as_scipy_itself() -> None:
    """With the same evaluations: scipy's end is the run's first restart."""
    model, evaluations = Valley(), 0

    def both(x: Any) -> Any:
        nonlocal evaluations
        evaluations += 1
        point = torch.tensor(x)
        model.left.data, model.right.data = point[:1], point[1:]
        found = model()
        return found.item(), torch.cat(torch.autograd.grad(found, list(model.parameters()))).numpy()

    expected = optimize.minimize(both, START, jac=True, method="L-BFGS-B")
    assert expected.success
    ours, adapted = finished("scipy:L-BFGS-B", Budget(grads=evaluations))
    assert ours.point == expected.x.tolist()
    assert adapted.calls.grads == evaluations == expected.nfev


def test_a_converged_loop_ends() -> None:
    model, adapted = made("scipy:L-BFGS-B")
    with pytest.raises(Converged, match="ended by itself"):
        while True:
            adapted.step(model)
    assert model.point == pytest.approx([1, 1, 1], abs=1e-5)


@pytest.mark.parametrize("spec", ["scipy:Powell", "scipy:L-BFGS-B", "scipy:trust-krylov"])
def test_an_unfinished_iteration_is_undone(spec: str) -> None:
    model, adapted = made(spec)
    adapted.step(model)
    point, buffer = model.point, model.calls.clone()
    adapted.step(model)
    limit = adapted.calls.forwards() - 1
    ended, again = finished(spec, Budget(forwards=limit))
    assert ended.point == point
    assert torch.equal(ended.calls, buffer)
    assert again.calls.forwards() <= limit


def test_the_buffers_of_a_step_are_those_of_one_evaluation() -> None:
    model, adapted = made("scipy:L-BFGS-B")
    for _ in range(4):
        adapted.step(model)
    assert adapted.calls.grads > 4
    assert model.calls == 4


def test_hessian_products_share_a_graph() -> None:
    _, adapted = finished("scipy:trust-ncg", Budget(forwards=200))
    assert adapted.calls.products > 5
    assert adapted.calls.grads <= adapted.calls.values + 2


SEEDED = [
    pytest.param("optuna:TPESampler", 40),
    pytest.param("optuna:RandomSampler", 40),
    pytest.param("cma:CMAEvolutionStrategy", 100),
    pytest.param("nevergrad:OnePlusOne", 100),
    pytest.param("nevergrad:DE", 100),
]


@pytest.mark.parametrize(("spec", "count"), SEEDED)
def test_ask_and_tell(spec: str, count: int) -> None:
    """Repeatable by seed, counted, and better than the start."""
    library = spec.partition(":")[0]
    pytest.importorskip(library, reason=f"needs {library}")
    points: list[list[float]] = []
    for seed, disturbed in ((1, 0), (1, 7), (2, 0)):
        np.random.seed(disturbed)  # noqa: NPY002
        torch.manual_seed(disturbed)
        model, adapted = finished(spec, Budget(forwards=count), seed)
        assert adapted.calls.values == count
        points.append(model.point)
        assert model().item() < Valley()().item()
    assert points[0] == points[1] != points[2]


def test_the_best_point_of_optuna_is_reported() -> None:
    model, adapted = made("optuna:RandomSampler")
    losses = [adapted.step(model).item() for _ in range(10)]
    assert losses[0] == Valley()().item()
    assert model().item() == min(losses)
    assert losses[-1] != min(losses)


def test_options_reach_the_library() -> None:
    pytest.importorskip("cma", reason="needs cma")
    model, adapted = made("cma:CMAEvolutionStrategy", popsize=11)
    adapted.step(model)
    assert adapted.calls.values == 11


def test_cma_needs_rankings_only() -> None:
    """Any increasing function of the loss gives the same run, and only rankings are counted."""
    pytest.importorskip("cma", reason="needs cma")
    points = []
    for change in (lambda losses: losses, torch.exp):
        model, adapted = made("cma:CMAEvolutionStrategy")
        adapted.judge(lambda losses, change=change: change(losses / 1e3).argsort().tolist())
        for _ in range(5):
            assert adapted.step(model) is None
        points.append(model.point)
    assert points[0] == points[1]
    assert (adapted.calls.values, adapted.calls.rankings, adapted.calls.ranked) == (0, 5, 35)


def test_an_error_of_the_closure_or_the_library_is_the_runs() -> None:
    model, adapted = made("scipy:CG")

    def broken() -> Tensor:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        adapted.step(broken)
    model, adapted = made("scipy:Nelder-Mead", initial_simplex=((0.0,), (1.0,)))
    with pytest.raises(ValueError, match="initial_simplex"):
        adapted.step(model)


def test_no_thread_is_left() -> None:
    model, adapted = made("scipy:CG")
    adapted.step(model)
    names = [each.name for each in threading.enumerate()]
    assert names.count("anyorder loop") == 1
    del adapted
    assert "anyorder loop" not in [each.name for each in threading.enumerate()]


def test_float32_and_frozen_parameters() -> None:
    model = nn.Linear(3, 1)
    model.bias.requires_grad_(False)
    bias = model.bias.clone()
    adapted = adapt(resolve("scipy:L-BFGS-B"), model, {}, Budget(), 0)
    assert isinstance(adapted, Loop)
    first = adapted.step(lambda: (model(torch.eye(3)) - 3).square().mean())
    last = adapted.step(lambda: (model(torch.eye(3)) - 3).square().mean())
    assert first is not None and last is not None and last < first
    assert model.weight.dtype == torch.float32
    assert torch.equal(model.bias, bias)

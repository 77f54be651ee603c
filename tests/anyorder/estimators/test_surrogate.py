from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyorder import Optimizer
from anyorder.estimators.surrogate import SURROGATE
from anyorder.hyper import HyperError
from anyorder.linalg.gaussian_process import fit
from anyorder.optimizer.record import CheckpointError
from anyorder.oracle import NeedsError
from anyorder.oracle.gradients import NonFiniteError
from anyorder.rules.adamw import ADAMW
from anyorder.rules.descent import DESCENT


class SurrogateDescent(Optimizer):
    """The estimate itself."""

    order = 0
    estimator, slots, counters = SURROGATE, SURROGATE.slots, SURROGATE.counters
    rule = DESCENT


class SurrogateAdam(Optimizer):
    """The estimate as Adam takes gradients."""

    order = 0
    estimator, slots, counters = SURROGATE, SURROGATE.slots, SURROGATE.counters
    rule = ADAMW


CURVES = torch.linspace(0.5, 2.0, 6, dtype=torch.float64)


def start(kind: Any, **options: Any) -> tuple[list[Tensor], Any]:
    x = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 0.3]], dtype=torch.float64))
    y = nn.Parameter(torch.tensor([1.5, -1.0], dtype=torch.float64))
    named: Any = [("x", x), ("y", y)]
    return [x, y], kind(named, lr=0.05, seed=3, engine="eager", **options)


def loss_of(params: list[Tensor]) -> Tensor:
    flat = torch.cat([p.reshape(-1) for p in params])
    return (CURVES * flat.square()).sum() / 2


def test_the_estimate_is_the_gradient_of_a_process_over_all_queries() -> None:
    params, optimizer = start(SurrogateDescent, queries=4, radius=0.1)
    asked: list[tuple[Tensor, Tensor]] = []

    def closure() -> Tensor:
        # Operations receive the shifted values.
        flat = torch.cat([params[0].reshape(-1), params[1] * 1.0])
        loss = (CURVES * flat.square()).sum() / 2
        asked.append((flat.detach().clone(), loss.detach().clone()))
        return loss

    for step in range(4):
        here = torch.cat([p.detach().reshape(-1) for p in params])
        optimizer.step(closure)
        assert len(asked) == 5 * (step + 1) == optimizer.calls.values
        assert torch.equal(asked[5 * step][0], here)
        around = torch.stack([point for point, _ in asked[-4:]]) - here
        assert 0.05 < around.abs().max() <= 0.1
        points, losses = (torch.stack(list(each)) for each in zip(*asked, strict=True))
        gradient = fit(points, losses).gradient(here)
        moved = torch.cat([p.detach().reshape(-1) for p in params])
        torch.testing.assert_close(moved, here - 0.05 * gradient, rtol=1e-9, atol=1e-11)


def test_it_learns_the_gradient_from_few_values() -> None:
    """After some steps, 6 values per step tell the gradient in 6 dimensions almost exactly."""
    params, optimizer = start(SurrogateDescent, queries=5, radius=0.05)
    for _ in range(10):
        optimizer.step(lambda: loss_of(params))
    here = torch.cat([p.detach().reshape(-1) for p in params])
    optimizer.step(lambda: loss_of(params))
    moved = torch.cat([p.detach().reshape(-1) for p in params])
    estimate = (here - moved) / 0.05
    truth = CURVES * here
    assert torch.cosine_similarity(estimate, truth, dim=0) > 0.99


def test_history_tells_more_than_the_queries_of_one_step() -> None:
    """The mean of 5 forward differences has a cosine of about the root of 5 / (5 + 30 + 1)."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(60, 30, dtype=torch.float64, generator=generator) / 30**0.5
    x = nn.Parameter(torch.randn(30, dtype=torch.float64, generator=generator))
    named: Any = [("x", x)]
    optimizer = SurrogateDescent(named, lr=0.5, queries=5, radius=0.05, engine="eager")
    for _ in range(20):
        before = x.detach().clone()
        optimizer.step(lambda: torch.tanh(mix @ x).square().mean())
    here = before.clone().requires_grad_()
    (truth,) = torch.autograd.grad(torch.tanh(mix @ here).square().mean(), here)
    assert torch.cosine_similarity(before - x.detach(), truth, dim=0) > 0.8


@pytest.mark.parametrize("kind", [SurrogateDescent, SurrogateAdam])
def test_any_rule_descends(kind: Any) -> None:
    params, optimizer = start(kind, queries=3)
    first = optimizer.step(lambda: loss_of(params))
    for _ in range(60):
        last = optimizer.step(lambda: loss_of(params))
    assert last < 0.2 * first
    assert (optimizer.calls.values, optimizer.calls.grads) == (61 * 4, 0)


@pytest.mark.parametrize("history", [5, 40])
def test_history_is_capped_and_resumes_bit_for_bit(history: int) -> None:
    options = {"queries": 3, "history": history}
    params, unbroken = start(SurrogateAdam, **options)
    for _ in range(5):
        unbroken.step(lambda: loss_of(params))
    file = io.BytesIO()
    torch.save([[p.detach() for p in params], unbroken.state_dict()], file)
    file.seek(0)
    values, state = torch.load(file, weights_only=True)
    others, fresh = start(SurrogateAdam, **options)
    fresh.load_state_dict(state)
    with torch.no_grad():
        for other, value in zip(others, values, strict=True):
            other.copy_(value)
    for _ in range(5):
        unbroken.step(lambda: loss_of(params))
        fresh.step(lambda: loss_of(others))
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))
    entries = unbroken.entries()
    assert entries["x"]["past_points"].shape == (history, 2, 2) and entries["y"]["past"] == 40
    # Points and two moments of 6 numbers; losses with each of two parameters.
    assert unbroken.state_bytes() == 8 * (6 * history + 2 * history + 2 * 6)
    state["state"][0]["past_points"] = torch.zeros(3, 2, 2, dtype=torch.float64)
    with pytest.raises(CheckpointError, match="past_points of x has shape"):
        start(SurrogateAdam, **options)[1].load_state_dict(state)


def test_weights_are_unharmed_by_exploration() -> None:
    params, optimizer = start(SurrogateDescent, queries=4)
    optimizer.param_groups[0]["lr"] = 0.0
    before = [p.detach().clone() for p in params]
    for _ in range(3):
        optimizer.step(lambda: loss_of(params))
    assert all(torch.equal(a, b) for a, b in zip(before, params, strict=True))


def test_a_frozen_parameter_starts_the_history_again() -> None:
    params, optimizer = start(SurrogateDescent, queries=2)
    optimizer.step(lambda: loss_of(params))
    params[1].requires_grad_(False)
    optimizer.step(lambda: loss_of(params))
    assert optimizer.entries()["x"]["past"] == 6
    params[1].requires_grad_(True)
    optimizer.step(lambda: loss_of(params))
    assert {entry["past"] for entry in optimizer.entries().values()} == {3}


def test_values_that_are_not_finite() -> None:
    params, optimizer = start(SurrogateDescent, queries=2)
    bad = False
    before = [p.detach().clone() for p in params]

    def closure() -> Tensor:
        return loss_of(params) * (float("nan") if bad else 1.0)

    bad = True
    with pytest.raises(NonFiniteError):
        optimizer.step(closure)
    assert optimizer.entries()["x"]["past"] == 0
    for policy, seen in (("skip", 0), ("ignore", 3)):
        params, optimizer = start(SurrogateDescent, queries=2, nonfinite=policy)
        optimizer.step(closure)
        assert optimizer.entries()["x"]["past"] == seen
        assert all(torch.equal(a, b) for a, b in zip(before, params, strict=True))
    bad = False
    for _ in range(3):
        optimizer.step(closure)
    assert all(p.isfinite().all() for p in params)
    assert not torch.equal(before[0], params[0])


def test_float32_parameters_and_the_points_that_were_asked() -> None:
    x = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    optimizer = SurrogateDescent([("x", x)], lr=0.1, radius=1e-3, queries=4)  # type: ignore[list-item]
    asked: list[Tensor] = []

    def closure() -> Tensor:
        asked.append((x * 1.0).detach())
        return asked[-1].square().sum()

    optimizer.step(closure)
    assert torch.equal(optimizer.entries()["x"]["past_points"][:5], torch.stack(asked))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": 0}, "queries: expected a value >= 1"),
        ({"radius": 0.0}, "radius: expected a value > 0"),
        ({"history": 1}, "history: expected a value >= 2"),
        ({"noise": -1.0}, "noise: expected a value > 0"),
    ],
)
def test_settings_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperError, match=message):
        start(SurrogateDescent, **options)


def test_a_method_without_a_place_for_the_history() -> None:
    class Forgetful(Optimizer):
        """Lacks the slots."""

        estimator, rule = SURROGATE, DESCENT

    with pytest.raises(NeedsError, match="Forgetful has no place for the history"):
        start(Forgetful)[1].step(lambda: torch.zeros((), dtype=torch.float64))

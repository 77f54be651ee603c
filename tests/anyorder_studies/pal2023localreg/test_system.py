"""The local penalty: its order, its gradient, its sampling, and what it does to training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from anyorder_studies.pal2023localreg.field import NetworkField
from anyorder_studies.pal2023localreg.solver import rk_step, scaled_norm, solve
from anyorder_studies.pal2023localreg.system import (
    LocalRegularizer,
    NeuralODE,
    local_error_penalty,
    train_regularized,
)
from anyorder_studies.pal2023localreg.tableaus import TABLEAUS, TSIT5, LocalRegError, Tableau

STATE = torch.tensor([[1.0, 0.3], [-0.2, 0.8]], dtype=torch.float64)


def bent(t: float, z: Tensor) -> Tensor:
    return torch.stack([z[..., 1], -torch.sin(3.0 * z[..., 0])], dim=-1)


@pytest.mark.parametrize("tableau", TABLEAUS.values(), ids=TABLEAUS)
def test_penalty_has_one_order_more_than_the_error(tableau: Tableau):
    found = [
        float(local_error_penalty(bent, 0.0, STATE, h, tableau, atol=1.0, rtol=0.0))
        for h in (0.05, 0.025)
    ]
    assert math.log2(found[0] / found[1]) == pytest.approx(tableau.order + 1, abs=0.25)


def test_penalty_is_step_times_scaled_norm():
    step = rk_step(bent, 0.2, STATE, 0.3)
    naive = 0.3 * scaled_norm(step.error, STATE, step.state, 1e-3, 1e-2)
    torch.testing.assert_close(
        local_error_penalty(bent, 0.2, STATE, 0.3, atol=1e-3, rtol=1e-2), naive
    )


@pytest.mark.parametrize("tableau", TABLEAUS.values(), ids=TABLEAUS)
def test_stiffness_of_a_linear_field_is_its_rate_in_units_of_stability(tableau: Tableau):
    found = local_error_penalty(lambda t, z: -40.0 * z, 0.0, STATE, 0.1, tableau, kind="stiffness")
    assert float(found) == pytest.approx(40.0 / tableau.stability)


def test_a_field_at_rest_costs_nothing():
    for kind in ("error", "stiffness"):
        assert float(local_error_penalty(lambda t, z: 0.0 * z, 0.0, STATE, 0.1, kind=kind)) == 0.0


def test_gradient_reaches_the_field_and_not_the_state():
    field = NetworkField(2, width=6)
    z = STATE.clone().requires_grad_()
    penalty = local_error_penalty(field, 0.0, z, 0.4, atol=1e-3)
    gradients = torch.autograd.grad(penalty, [z, *field.parameters()], allow_unused=True)
    assert gradients[0] is None
    weight, slope = field.weights[0], gradients[1]
    with torch.no_grad():
        moved = []
        for sign in (1.0, -1.0):
            weight[0, 0] += sign * 1e-5
            moved.append(float(local_error_penalty(field, 0.0, STATE, 0.4, atol=1e-3)))
            weight[0, 0] -= sign * 1e-5
    assert float(slope[0, 0]) == pytest.approx((moved[0] - moved[1]) / 2e-5, rel=1e-4)


def test_times_are_drawn_as_promised():
    solution = solve(bent, STATE, 0.0, 3.0)
    generator = torch.Generator().manual_seed(0)
    uniform = [LocalRegularizer("unbiased").pick(solution, generator) for _ in range(2000)]
    assert min(uniform) >= 0.0 and max(uniform) < 3.0
    assert sum(uniform) / 2000 == pytest.approx(1.5, abs=0.1)
    accepted = [LocalRegularizer("biased").pick(solution, generator) for _ in range(2000)]
    assert set(accepted) == set(solution.times[:-1])
    shares = [accepted.count(t) / 2000 for t in solution.times[:-1]]
    assert max(shares) - min(shares) < 0.5 / len(shares) + 0.03


def test_penalty_takes_the_step_it_says():
    solution = solve(bent, STATE, 0.0, 3.0)
    settings = {"atol": 1e-6, "rtol": 1e-6}
    for rule in ("solver", "initial"):
        regularizer = LocalRegularizer("biased", step=rule)
        t = regularizer.pick(solution, torch.Generator().manual_seed(5))
        z = solution.at(t)
        h = solution.step_at(t) if rule == "solver" else solve(bent, z, t, 3.0).times[1] - t
        expected = local_error_penalty(bent, t, z, h, **settings)
        found = regularizer.penalty(bent, solution, torch.Generator().manual_seed(5), **settings)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)


def test_weight_falls_exponentially():
    regularizer = LocalRegularizer(first=100.0, last=10.0)
    weights = [regularizer.weight(p) for p in (0.0, 0.5, 1.0)]
    assert weights == pytest.approx([100.0, 1000.0**0.5, 10.0])


def fit(regularizer: LocalRegularizer | None, steps: int = 60) -> tuple[float, int]:
    """Learn to map points to their negatives; final loss and evaluations."""
    field = NetworkField(2, width=16, seed=0)
    ode = NeuralODE(field)
    points = torch.randn(32, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def task(batch: Tensor):
        solution = ode(batch)
        return (solution.final + batch).square().mean(), solution

    history = train_regularized(
        ode,
        task,
        [points] * steps,
        list(field.parameters()),
        steps=steps,
        regularizer=regularizer,
        lr=1e-2,
    )
    assert len(history.losses) == len(history.penalties) == len(history.evaluations) == steps
    return history.losses[-1], history.evaluations[-1]


@pytest.mark.parametrize("sampling", ["unbiased", "biased"])
def test_a_strong_penalty_saves_evaluations(sampling):
    _, plain = fit(None)
    _, cheap = fit(LocalRegularizer(sampling, 100.0, 100.0, step="solver"))
    assert cheap < plain


def test_a_vanishing_penalty_changes_nothing():
    loss, _ = fit(None, 15)
    same, _ = fit(LocalRegularizer(first=1e-12, last=1e-12), 15)
    assert same == pytest.approx(loss, rel=1e-4)


def test_the_box_may_stay_closed():
    """With the adjoint, no gradient passes through the solver, and the penalty works the same."""
    field = NetworkField(2, width=6, seed=2)
    points = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    regularizer, found = LocalRegularizer(step="solver"), []
    for sensitivity in ("direct", "adjoint"):
        ode = NeuralODE(field, sensitivity=sensitivity)
        solution = ode(points)
        penalty = ode.penalty(regularizer, solution, torch.Generator().manual_seed(4))
        found.append(torch.autograd.grad(penalty, list(field.parameters())))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LocalRegularizer("everywhere"), "'everywhere'"),
        (lambda: LocalRegularizer(kind="energy"), "'energy'"),
        (lambda: LocalRegularizer(step="half"), "'half'"),
        (lambda: LocalRegularizer(first=0.0), "positive weights"),
        (lambda: local_error_penalty(bent, 0.0, STATE, 0.1, TSIT5, kind="energy"), "'energy'"),
        (lambda: NeuralODE(nn.Identity(), sensitivity="guess"), "'guess'"),
    ],
)
def test_bad_input_is_explained(call, message: str):
    with pytest.raises(LocalRegError, match=message):
        call()


def test_too_few_batches():
    field = NetworkField(2, width=4)
    ode = NeuralODE(field)

    def task(batch: Tensor):
        solution = ode(batch)
        return solution.final.square().mean(), solution

    for steps, message in ((0, "at least one step"), (3, "expected 3 batches, got 2")):
        with pytest.raises(LocalRegError, match=message):
            train_regularized(
                ode,
                task,
                [STATE] * 2,
                list(field.parameters()),
                steps=steps,
                regularizer=None,
            )

"""The solver against closed forms, scipy, and the theory of its error estimate."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from anyorder_studies.pal2023localreg.solver import (
    initial_step,
    rk_step,
    scaled_norm,
    solve,
)
from anyorder_studies.pal2023localreg.tableaus import TABLEAUS, TSIT5, LocalRegError, Tableau

START = torch.tensor([1.0, 0.3], dtype=torch.float64)


def pendulum(t: float, z: Tensor) -> Tensor:
    return torch.stack([z[1], -torch.sin(z[0]) + 0.2 * math.cos(t)])


@pytest.mark.parametrize("tableau", TABLEAUS.values(), ids=TABLEAUS)
def test_embedded_error_falls_with_its_order(tableau: Tableau):
    errors = [float(rk_step(pendulum, 0.1, START, h, tableau).error.norm()) for h in (0.2, 0.1)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(tableau.order, abs=0.25)


@pytest.mark.parametrize("tableau", TABLEAUS.values(), ids=TABLEAUS)
def test_step_against_a_naive_loop(tableau: Tableau):
    t, h, z = 0.3, 0.17, START.numpy()
    slopes: list[np.ndarray] = []
    for c, row in zip(tableau.c, tableau.a, strict=True):
        point = z + h * sum((w * k for w, k in zip(row, slopes, strict=True)), np.zeros(2))
        slopes.append(pendulum(t + c * h, torch.tensor(point)).numpy())
    step = rk_step(pendulum, t, START, h, tableau)
    np.testing.assert_allclose(step.state.numpy(), point, rtol=1e-14)
    naive = h * sum(w * k for w, k in zip(tableau.error, slopes, strict=True))
    np.testing.assert_allclose(step.error.numpy(), naive, rtol=1e-9, atol=1e-15)
    known = rk_step(pendulum, t, START, h, tableau, slope=pendulum(t, START))
    assert torch.equal(known.state, step.state)


@pytest.mark.parametrize("tableau", TABLEAUS.values(), ids=TABLEAUS)
@pytest.mark.parametrize("end", [4.0, -4.0])
def test_agrees_with_scipy_both_ways(tableau: Tableau, end: float):
    found = solve(pendulum, START, 0.0, end, rtol=1e-9, atol=1e-9, tableau=tableau)
    reference = solve_ivp(
        lambda t, z: pendulum(t, torch.tensor(z)).numpy(),
        (0.0, end),
        START.numpy(),
        rtol=1e-12,
        atol=1e-12,
        dense_output=True,
    )
    np.testing.assert_allclose(found.final.numpy(), reference.y[:, -1], atol=2e-7)
    assert found.times[0] == 0.0 and found.times[-1] == end
    for t in (0.21 * end, 0.77 * end):
        np.testing.assert_allclose(found.at(t).numpy(), reference.sol(t), atol=1e-4)


def test_error_follows_the_tolerance():
    exact = math.exp(-2.0)
    errors = []
    for tolerance in (1e-4, 1e-6, 1e-8):
        z = torch.ones(1, dtype=torch.float64)
        found = solve(lambda t, z: -z, z, 0.0, 2.0, rtol=tolerance, atol=tolerance)
        errors.append(abs(float(found.final) - exact))
        assert errors[-1] < 10.0 * tolerance
    assert errors[0] > errors[1] > errors[2]


def test_evaluations_are_counted_exactly():
    calls = 0

    def counted(t: float, z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return 30.0 * math.exp(-(((t - 0.7) / 0.02) ** 2)) * torch.ones_like(z)

    found = solve(counted, torch.zeros(1, dtype=torch.float64), 0.0, 1.5)
    assert found.evaluations == calls
    assert calls == 2 + 6 * (len(found.times) - 1 + found.rejected)
    assert found.rejected > 0


def test_interpolation_meets_states_and_slopes():
    found = solve(pendulum, START, 0.0, 2.0)
    for t, state, slope in zip(found.times, found.states, found.slopes, strict=True):
        torch.testing.assert_close(found.at(t), state)
        torch.testing.assert_close(slope, pendulum(t, state))
    assert found.step_at(found.times[1]) == pytest.approx(found.times[2] - found.times[1])
    assert found.step_at(2.0) == pytest.approx(found.times[-1] - found.times[-2])


def test_gradient_through_the_steps():
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    z0 = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    final = solve(lambda t, z: -rate * z, z0, 0.0, 1.5, rtol=1e-10, atol=1e-10).final
    gradients = torch.autograd.grad(final.sum(), (rate, z0))
    assert float(gradients[0]) == pytest.approx(-1.5 * 2.0 * math.exp(-1.05), rel=1e-7)
    assert float(gradients[1]) == pytest.approx(math.exp(-1.05), rel=1e-7)


def test_first_step_by_hand():
    # z' = -z from 1: size = speed = 1 / 1.1, so the trial step is 0.01.
    z = torch.ones(1, dtype=torch.float64)
    found = initial_step(lambda t, z: -z, 0.0, z, 10.0, atol=0.1, rtol=1.0)
    assert found == pytest.approx((0.01 / (1.0 / 1.1)) ** 0.2)
    back = initial_step(lambda t, z: -z, 0.0, z, -10.0, atol=0.1, rtol=1.0)
    assert back < 0.0
    still = initial_step(lambda t, z: 0.0 * z, 0.0, z, 1.0, atol=0.1, rtol=1.0)
    assert 0.0 < still <= 1.0
    assert initial_step(lambda t, z: -z, 0.0, z, 0.001, atol=0.1, rtol=1.0) == 0.001


def test_a_field_at_rest_needs_few_steps():
    found = solve(lambda t, z: 0.0 * z, START, 0.0, 1.0)
    assert torch.equal(found.final, START)
    assert len(found.times) < 20


def test_scaled_norm_by_hand():
    error = torch.tensor([0.3, -0.4])
    found = scaled_norm(error, torch.tensor([1.0, 2.0]), torch.tensor([-3.0, 1.0]), 0.5, 0.5)
    assert float(found) == pytest.approx((((0.3 / 2.0) ** 2 + (0.4 / 1.5) ** 2) / 2) ** 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: solve(pendulum, START, 1.0, 1.0), "t1 != t0"),
        (lambda: solve(pendulum, START, 0.0, 1.0, atol=0.0), "atol > 0"),
        (lambda: solve(pendulum, torch.tensor([1, 2]), 0.0, 1.0), "floating-point"),
        (lambda: solve(pendulum, START, 0.0, 9.0, max_steps=3), "after 3 steps"),
        (lambda: solve(lambda t, z: z**2, START, 0.0, 2.0), "finite|steps"),
        (lambda: solve(lambda t, z: z * math.nan, START, 0.0, 1.0), "finite"),
        (lambda: solve(pendulum, START, 0.0, 1.0).at(1.5), "time in"),
    ],
)
def test_bad_input_is_explained(call, message: str):
    with pytest.raises(LocalRegError, match=message):
        call()


def test_default_pair_is_that_of_the_paper():
    one = solve(pendulum, START, 0.0, 1.0)
    assert one.times == solve(pendulum, START, 0.0, 1.0, tableau=TSIT5).times

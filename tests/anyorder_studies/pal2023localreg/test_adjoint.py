"""Gradients of the backward solve against those through the steps."""

from __future__ import annotations

import pytest
import torch

from anyorder_studies.pal2023localreg.adjoint import solve_adjoint
from anyorder_studies.pal2023localreg.field import NetworkField
from anyorder_studies.pal2023localreg.solver import solve


@pytest.mark.parametrize("end", [1.0, -1.0])
def test_both_ways_to_the_gradient_agree(end: float):
    field = NetworkField(3, width=8, seed=1)
    weights = list(field.parameters())
    with torch.no_grad():
        for weight in weights:
            weight.mul_(2.0)
    z0 = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z0.requires_grad_()
    settings = {"rtol": 1e-8, "atol": 1e-8}
    direct = solve(field, z0, 0.0, end, **settings)
    adjoint = solve_adjoint(field, z0, 0.0, end, weights, **settings)
    torch.testing.assert_close(adjoint.final, direct.final)
    assert adjoint.evaluations == direct.evaluations
    found, expected = (
        torch.autograd.grad(s.final.square().sum(), (z0, *weights)) for s in (adjoint, direct)
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-4)


def test_states_on_the_way_carry_no_graph():
    field = NetworkField(2, width=4)
    solution = solve_adjoint(
        field, torch.ones(1, 2, dtype=torch.float64), 0.0, 1.0, list(field.parameters())
    )
    assert solution.final.requires_grad
    assert not any(state.requires_grad for state in solution.states[:-1])

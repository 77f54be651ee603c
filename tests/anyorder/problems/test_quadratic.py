"""The quadratic bowl has the spectrum it promises."""

from __future__ import annotations

import pytest
import torch

from anyorder.problems.quadratic import Quadratic


@pytest.mark.parametrize(("dim", "condition"), [(20, 100.0), (7, 1e4), (5, 1.0)])
def test_spectrum(dim, condition):
    problem = Quadratic(dim=dim, condition=condition)
    hessian = torch.autograd.functional.hessian(problem.value, problem.start(0))
    eigenvalues = torch.linalg.eigvalsh(hessian)
    assert eigenvalues[-1].item() == pytest.approx(1.0)
    assert eigenvalues[0].item() == pytest.approx(1 / condition)
    ratios = eigenvalues[1:] / eigenvalues[:-1]
    assert torch.allclose(ratios, ratios.mean().expand_as(ratios), rtol=1e-6)


def test_axes_are_turned():
    matrix = Quadratic().matrix
    off = matrix - matrix.diag().diag()
    assert off.norm() > 0.3 * matrix.norm()


def test_one_newton_step_solves_it():
    problem = Quadratic()
    x = problem.start(4)
    gradient = torch.func.grad(problem.value)(x)
    assert problem.value(x - torch.linalg.solve(problem.matrix, gradient)) < 1e-25


def test_two_instances_are_the_same_problem():
    assert torch.equal(Quadratic().matrix, Quadratic().matrix)
    assert torch.equal(Quadratic().solution, Quadratic().solution)
    assert not torch.equal(Quadratic().start(0), Quadratic().solution)

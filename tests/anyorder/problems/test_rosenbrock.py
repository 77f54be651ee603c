"""Rosenbrock's valley against its formula."""

from __future__ import annotations

import pytest
import torch

from anyorder.problems import ProblemError
from anyorder.problems.rosenbrock import Rosenbrock


def test_formula():
    problem = Rosenbrock(dim=3, condition=7.0)
    x = [0.3, -1.2, 2.0]
    expected = 7 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
    expected += 7 * (x[2] - x[1] ** 2) ** 2 + (1 - x[1]) ** 2
    assert problem.value(torch.tensor(x, dtype=torch.float64)).item() == pytest.approx(expected)


def test_the_customary_start_has_its_customary_value():
    x = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    assert Rosenbrock().value(x).item() == pytest.approx(24.2)


def test_condition_of_the_hessian():
    hessian = torch.autograd.functional.hessian(Rosenbrock().value, Rosenbrock().solution)
    assert torch.linalg.cond(hessian).item() == pytest.approx(2500, rel=0.01)


def test_starts_lie_in_the_box():
    starts = torch.stack([Rosenbrock(dim=5).start(seed) for seed in range(50)])
    assert starts.abs().max() <= 2
    assert starts.min() < -1.5
    assert starts.max() > 1.5


def test_one_dimension_is_too_few():
    with pytest.raises(ProblemError, match="at least 2; got 1"):
        Rosenbrock(dim=1)

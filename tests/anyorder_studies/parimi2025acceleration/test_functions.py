from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from anyorder_studies.parimi2025acceleration.functions import (
    Smooth,
    descent,
    pieces,
    prepared,
    quadratic,
    ridge,
)
from anyorder_studies.study import StudyError

FUNCTIONS = {
    "quadratic": lambda: quadratic(50.0, size=7),
    "ridge": lambda: ridge(200.0),
    "pieces": lambda: pieces(3),
}


def slope(function: Smooth, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(function.value(x), x)
    return gradient


@pytest.mark.parametrize("name", FUNCTIONS)
def test_slope_is_zero_at_the_minimum(name: str) -> None:
    function = FUNCTIONS[name]()
    assert slope(function, function.minimum).norm().item() < 1e-12


@pytest.mark.parametrize("name", FUNCTIONS)
def test_curvatures_keep_to_their_bounds(name: str) -> None:
    """Secants between random points never show less than mu or more than L."""
    function = FUNCTIONS[name]()
    rng = np.random.default_rng(1)
    for _ in range(50):
        a, b = (torch.tensor(rng.normal(size=len(function.minimum)) * 2) for _ in range(2))
        move, change = b - a, slope(function, b) - slope(function, a)
        along = float(move @ change)
        assert along >= function.mu * float(move @ move) * (1 - 1e-9)
        assert float(change @ change) <= function.smooth * along * (1 + 1e-9)


def test_ridge_has_the_condition_asked_for() -> None:
    for condition in (10.0, 1e4):
        function = ridge(condition)
        assert function.smooth / function.mu == pytest.approx(condition, rel=1e-12)


def test_pieces_fit_together() -> None:
    function = pieces(1)
    joints = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    for joint in joints:
        before, after = function.value(joint - 1e-9), function.value(joint + 1e-9)
        assert before.item() == pytest.approx(after.item(), abs=1e-6)
        left, right = slope(function, joint - 1e-9), slope(function, joint + 1e-9)
        assert left.item() == pytest.approx(right.item(), abs=1e-6)
    assert slope(function, torch.tensor([1.5], dtype=torch.float64)).item() == 25.5


def test_descent_counts_the_first_step_that_is_near_enough() -> None:
    """Gradient descent on a parabola of condition 4 shrinks every distance by 3 / 5."""
    function = quadratic(4.0, size=2)
    start = torch.tensor([1.0, 1.0], dtype=torch.float64)
    steps, speed = descent(function, start, "gradient", share=0.6**10 * 1.0001)
    assert steps == 10
    assert speed == pytest.approx(1.0)


def test_descent_gives_up() -> None:
    with pytest.raises(StudyError, match="gradient did not come to 1e-08"):
        descent(quadratic(1e3, 5), torch.ones(5, dtype=torch.float64), "gradient", limit=3)


def test_untold_methods_estimate() -> None:
    start = torch.ones(2, dtype=torch.float64)
    function = quadratic(9.0, size=2)
    told, untold = (prepared(function, start, "nesterov", known)[1] for known in (True, False))
    assert told.certificate().proved and not untold.certificate().proved

"""Rastrigin's egg box against its formula."""

from __future__ import annotations

import math

import pytest
import torch

from anyorder.problems.rastrigin import Rastrigin


@pytest.mark.parametrize("condition", [1.0, 100.0])
def test_formula(condition):
    problem = Rastrigin(dim=3, condition=condition)
    away = [0.3, -1.2, 2.0]
    expected = 0.0
    for i, step in enumerate(away):
        z = condition ** (i / 4) * step
        expected += z**2 + 10 - 10 * math.cos(2 * math.pi * z)
    x = problem.solution + torch.tensor(away, dtype=torch.float64)
    assert problem.value(x).item() == pytest.approx(expected)


def test_target_is_below_every_other_minimum():
    problem = Rastrigin(dim=1)
    grid = torch.linspace(-5, 5, 4_001, dtype=torch.float64) + problem.solution
    values = torch.stack([problem.value(x.reshape(1)) for x in grid])
    is_lowest = (values[1:-1] < values[:-2]) & (values[1:-1] < values[2:])
    minima = values[1:-1][is_lowest].sort()[0]
    assert len(minima) > 8
    assert minima[0] < 1e-3
    assert minima[1].item() == pytest.approx(0.995, abs=1e-3)
    assert problem.target < minima[1]


def test_minimum_is_not_at_the_origin():
    problem = Rastrigin()
    assert problem.value(torch.zeros(5, dtype=torch.float64)) > 1
    assert problem.solution.abs().max() <= 1


def test_starts_lie_in_the_box():
    problem = Rastrigin()
    starts = torch.stack([problem.start(seed) - problem.solution for seed in range(50)])
    assert 4.5 < starts.abs().max() <= 5.12


def test_one_dimension():
    assert Rastrigin(dim=1, condition=9.0).evaluate(Rastrigin(dim=1).build(0))["loss"] > 0

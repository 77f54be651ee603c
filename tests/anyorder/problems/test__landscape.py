"""What the closed functions have in common."""

from __future__ import annotations

import pytest
import torch

from anyorder.problems import ProblemError, load
from anyorder.problems._landscape import Point

NAMES = ("quadratic", "rastrigin", "rosenbrock")
HARD = {"dim": 6, "condition": 50.0}


def test_point_keeps_a_copy():
    start = torch.zeros(3, dtype=torch.float64)
    point = Point(start)
    start += 1
    assert torch.equal(point(), torch.zeros(3, dtype=torch.float64))
    assert [name for name, _ in point.named_parameters()] == ["x"]


@pytest.mark.parametrize("options", [{}, HARD], ids=["default", "hard"])
@pytest.mark.parametrize("name", NAMES)
class TestLandscapes:
    def test_the_minimum_is_where_it_is_said_to_be(self, name, options):
        problem = load(name, **options)
        model = Point(problem.solution)
        assert problem.evaluate(model) == {"loss": 0.0, "distance": 0.0}
        assert problem.optimum == 0.0
        problem.loss(model, None).backward()
        assert model.x.grad.abs().max() < 1e-12
        hessian = torch.autograd.functional.hessian(problem.value, problem.solution)
        assert torch.linalg.eigvalsh(hessian).min() > 0

    def test_nothing_is_lower(self, name, options):
        problem = load(name, **options)
        chance = torch.Generator().manual_seed(0)
        for scale in (0.01, 1.0, 5.0):
            away = scale * torch.randn(problem.dim, dtype=torch.float64, generator=chance)
            assert problem.value(problem.solution + away) > 0

    def test_start_comes_from_the_seed(self, name, options):
        problem = load(name, **options)
        starts = [problem.build(seed)() for seed in (0, 0, 1)]
        assert starts[0].dtype == torch.float64
        assert starts[0].shape == (problem.dim,)
        assert torch.equal(starts[0], starts[1])
        assert not torch.equal(starts[0], starts[2])

    def test_evaluation_is_the_loss(self, name, options):
        problem = load(name, **options)
        model = problem.build(3)
        assert problem.batch(0, 5) is None
        assert problem.evaluate(model)["loss"] == problem.loss(model, None).item()
        distance = (model() - problem.solution).norm().item()
        assert problem.evaluate(model)["distance"] == pytest.approx(distance)

    def test_wrong_options(self, name, options):
        with pytest.raises(ProblemError, match=f"{name}: dim must be an integer"):
            load(name, **{**options, "dim": 0})
        with pytest.raises(ProblemError, match=f"{name}: condition must be a finite number"):
            load(name, **{**options, "condition": 0.5})


@pytest.mark.parametrize("name", NAMES)
def test_works_in_another_precision(name):
    problem = load(name)
    model = problem.build(0)
    expected = problem.evaluate(model)
    assert problem.evaluate(model.float()) == pytest.approx(expected, rel=1e-4)

"""Logistic regression: the objective, and the minimum that is claimed for it."""

from __future__ import annotations

import itertools

import pytest
import torch

from anyorder.problems import ProblemError
from anyorder.problems.cancer import Cancer, _minimum

pytest.importorskip("sklearn", reason="needs scikit-learn")


@pytest.fixture(scope="module")
def cancer() -> Cancer:
    return Cancer()


def test_data_is_standardised_by_the_training_part(cancer):
    train, test = cancer._parts
    assert train.features.shape == (456, 30)
    assert test.features.shape == (113, 30)
    assert train.features.dtype == torch.float64
    assert train.features.mean(0).abs().max() < 1e-12
    assert (train.features.std(0, correction=0) - 1).abs().max() < 1e-12
    assert test.features.mean(0).abs().max() > 1e-3
    assert set(train.answers.tolist()) == {0.0, 1.0}


def test_objective(cancer):
    model = cancer.build(0)
    data = cancer.batch(0, 0)
    signs = 2 * data.answers - 1
    scores = data.features @ model.weight[0] + model.bias
    expected = torch.log1p(torch.exp(-signs * scores)).mean()
    expected = expected + 0.5 * 1e-3 * model.weight.square().sum()
    assert cancer.loss(model, data).item() == pytest.approx(expected.item(), rel=1e-12)
    result = cancer.evaluate(model)
    assert result["loss"] == cancer.loss(model, data).item()
    assert result["regret"] == result["loss"] - cancer.optimum


@pytest.mark.parametrize("l2", [1e-1, 1e-3, 1e-5])
def test_optimum_against_an_independent_method(l2):
    """SciPy's L-BFGS-B on the problem's own loss; slope and curvature there bound its error."""
    optimize = pytest.importorskip("scipy.optimize")
    problem = Cancer(l2=l2)
    model = problem.build(0)
    vector = torch.nn.utils.parameters_to_vector

    def objective(point):
        torch.nn.utils.vector_to_parameters(torch.tensor(point), model.parameters())
        loss = problem.loss(model, problem.batch(0, 0))
        gradient = torch.autograd.grad(loss, list(model.parameters()))
        return loss.item(), vector(gradient).numpy()

    start = vector(model.parameters()).detach().numpy()
    options = {"maxiter": 20_000, "maxfun": 50_000, "ftol": 1e-16, "gtol": 1e-9, "maxcor": 60}
    found = optimize.minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    features, answers = problem.batch(0, 0)

    def plain(point):
        scores = features @ point[:-1] + point[-1]
        penalty = 0.5 * l2 * point[:-1].square().sum()
        return torch.nn.functional.softplus((1 - 2 * answers) * scores).mean() + penalty

    point = torch.tensor(found.x)
    curvature = torch.linalg.eigvalsh(torch.autograd.functional.hessian(plain, point)).min()
    bound = (torch.func.grad(plain)(point).square().sum() / (2 * curvature)).item()
    assert bound < 1e-10
    assert found.fun - 2 * bound - 1e-14 <= problem.optimum <= found.fun + 1e-10


def test_optimum_has_no_slope():
    """On a problem with a solution in closed form: balanced answers that features cannot tell."""
    features = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=torch.float64)
    answers = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    assert _minimum(features, answers, 0.1) == pytest.approx(0.6931471805599453, abs=1e-15)


def test_full_newton_steps_may_go_up():
    """Few points of very different size, hardly any penalty: the first steps must be cut."""
    chance = torch.Generator().manual_seed(53)
    n, d = (int(torch.randint(*ends, (), generator=chance)) for ends in ((4, 30), (1, 4)))
    sizes = torch.randn(n, d, dtype=torch.float64, generator=chance)
    spread = torch.randn(n, 1, dtype=torch.float64, generator=chance)
    features = sizes * torch.exp(3 * spread)
    answers = (torch.rand(n, generator=chance) < 0.3).double()
    assert (n, d) == (5, 3)

    def plain(point):
        scores = features @ point[:-1] + point[-1]
        penalty = 0.5e-8 * point[:-1].square().sum()
        return torch.nn.functional.softplus((1 - 2 * answers) * scores).mean() + penalty

    point, values = torch.zeros(4, dtype=torch.float64), []
    for _ in range(60):
        values.append(plain(point).item())
        hessian = torch.autograd.functional.hessian(plain, point)
        point = point - torch.linalg.solve(hessian, torch.func.grad(plain)(point))
    assert any(after > before for before, after in itertools.pairwise(values))
    assert _minimum(features, answers, 1e-8) <= min(v for v in values if v == v) + 1e-12


def test_optimum_is_computed_once(cancer, monkeypatch):
    first = cancer.optimum
    monkeypatch.setattr("anyorder.problems.cancer._minimum", None)
    assert cancer.optimum == first


def test_newton_gives_up_with_a_message():
    """An answer that is not a number: no step can be shown to go down."""
    features = torch.tensor([[1e-9], [-1e-9]], dtype=torch.float64)
    answers = torch.tensor([1.0, float("nan")], dtype=torch.float64)
    with pytest.raises(ProblemError, match="use a larger l2"):
        _minimum(features, answers, 1e-3)


def test_full_batch(cancer):
    assert cancer.batch(0, 0) is cancer.batch(5, 9)


def test_accuracy_on_test_data(cancer):
    model = cancer.build(0)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = cancer.loss(model, cancer.batch(0, 0))
        loss.backward()
        return loss

    optimizer.step(closure)
    assert 0 <= cancer.evaluate(model)["regret"] < cancer.target
    assert cancer.test(model)["accuracy"] > 0.94


@pytest.mark.parametrize("wrong", [0, -1.0, float("inf"), "1e-3"])
def test_wrong_penalty(wrong):
    with pytest.raises(ProblemError, match="cancer: l2 must be a finite number"):
        Cancer(l2=wrong)

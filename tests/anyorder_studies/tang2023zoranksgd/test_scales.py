from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.kernel_ridge import KernelRidge

from anyorder.problems import check
from anyorder_studies.tang2023zoranksgd.scales import LengthScales, Scales


def test_the_errors_are_those_of_scikit_learn() -> None:
    problem, model = LengthScales(split=3), Scales()
    with torch.no_grad():
        model.x.copy_(torch.linspace(-1, 1, 10))
    (fitted, known), validation, test = problem._parts
    weights = np.exp(np.linspace(-1, 1, 10))
    peer = KernelRidge(alpha=0.5, kernel="rbf", gamma=1 / 20)
    peer.fit(fitted.numpy() * weights, known.numpy())
    for (features, answers), judged in ((validation, problem.evaluate), (test, problem.test)):
        expected = np.mean((peer.predict(features.numpy() * weights) - answers.numpy()) ** 2)
        assert judged(model)["loss"] == pytest.approx(expected, rel=1e-9)
    assert problem.loss(model, None).item() == problem.evaluate(model)["loss"]


def test_patients_are_split_and_standardised_by_the_fitted_part() -> None:
    parts = LengthScales(split=1)._parts
    assert [len(answers) for _, answers in parts] == [150, 146, 146]
    features, answers = parts[0]
    assert torch.allclose(features.mean(0), torch.zeros(10, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(answers.std(), torch.ones((), dtype=torch.float64))
    everybody = torch.cat([answers for _, answers in parts])
    # Standardising keeps the order, so all patients are there exactly once.
    ranks = np.unique(load_diabetes().target, return_counts=True)[1]
    assert np.array_equal(np.unique(everybody.numpy().round(9), return_counts=True)[1], ranks)
    assert not torch.equal(LengthScales(split=2)._parts[0][1], answers)


def test_it_is_a_problem_and_the_scales_matter() -> None:
    check(LengthScales())
    problem, model = LengthScales(), Scales()
    (gradient,) = torch.autograd.grad(problem.loss(model, None), model.x)
    assert float(gradient.abs().max()) > 1e-3

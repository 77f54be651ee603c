from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from anyorder.linalg.gaussian_process import LENGTHS, fit

generator = torch.Generator().manual_seed(0)
POINTS = torch.rand(12, 3, dtype=torch.float64, generator=generator)
VALUES = torch.sin(3 * POINTS).sum(1)
X = torch.tensor([0.4, 0.5, 0.6], dtype=torch.float64)


def kernel(a: Tensor, b: Tensor, length: float) -> np.ndarray:
    return np.exp(-cdist(a.numpy(), b.numpy(), "sqeuclidean") / (2 * length**2))


def test_mean_and_gradient_are_those_of_the_textbook() -> None:
    model = fit(POINTS, VALUES, noise=1e-3, length=0.7)
    covariance = kernel(POINTS, POINTS, 0.7) + 1e-3 * np.eye(12)
    centred = (VALUES - VALUES.mean()).numpy()
    expected = kernel(X[None], POINTS, 0.7) @ np.linalg.solve(covariance, centred)
    assert float(model.value(X)) == pytest.approx(expected[0] + float(VALUES.mean()), rel=1e-10)
    x = X.clone().requires_grad_()
    distance = (x - POINTS).square().sum(1)
    mean = torch.exp(-distance / (2 * 0.7**2)) @ torch.tensor(np.linalg.solve(covariance, centred))
    (gradient,) = torch.autograd.grad(mean, x)
    torch.testing.assert_close(model.gradient(X), gradient, rtol=1e-9, atol=1e-11)


def test_uncertainty_is_the_trace_of_the_gradients_covariance() -> None:
    model = fit(POINTS, VALUES, noise=1e-3, length=0.7)
    covariance = kernel(POINTS, POINTS, 0.7) + 1e-3 * np.eye(12)
    candidates = torch.stack([X, X + 0.3])
    for candidate, found in zip(candidates, model.uncertainty(candidates), strict=True):
        slopes = (POINTS - candidate).numpy() * kernel(POINTS, candidate[None], 0.7) / 0.7**2
        posterior = np.eye(3) / 0.7**2 - slopes.T @ np.linalg.solve(covariance, slopes)
        assert float(found) == pytest.approx(model.scale**2 * np.trace(posterior), rel=1e-9)
    far, near = model.uncertainty(torch.stack([POINTS[0] + 100, POINTS.mean(0)]))
    assert far == pytest.approx(model.scale**2 * 3 / 0.7**2) and near < far


def test_the_length_is_the_one_of_highest_likelihood() -> None:
    model = fit(POINTS, VALUES, noise=1e-6)
    distances = cdist(POINTS, POINTS)[np.tril_indices(12, -1)]
    tried = [float(np.sort(distances)[(len(distances) - 1) // 2]) * f for f in LENGTHS]
    centred = (VALUES - VALUES.mean()).numpy()

    def likelihood(length: float) -> float:
        covariance = kernel(POINTS, POINTS, length) + 1e-6 * np.eye(12)
        variance = centred @ np.linalg.solve(covariance, centred) / 12
        return -0.5 * (12 * np.log(variance) + np.linalg.slogdet(covariance)[1])

    best = max(tried, key=likelihood)
    assert model.length == pytest.approx(best, rel=1e-9)
    assert len({likelihood(length) for length in tried}) > 1


def test_the_gradient_of_a_smooth_function_is_recovered() -> None:
    points = X + 0.02 * (2 * torch.rand(30, 3, dtype=torch.float64, generator=generator) - 1)
    found = fit(points, torch.sin(3 * points).sum(1), noise=1e-8).gradient(X)
    torch.testing.assert_close(found, 3 * torch.cos(3 * X), rtol=1e-2, atol=1e-2)


def test_degenerate_histories() -> None:
    (one,) = fit(X[None], VALUES[:1]).gradient(X)[:1]
    assert float(one) == 0.0
    same = fit(X.repeat(3, 1), VALUES[:1].repeat(3))  # one point, one value
    assert same.gradient(X).abs().max() == 0 and same.scale == 0
    flat = fit(POINTS, torch.full((12,), 2.5))
    assert flat.gradient(X).abs().max() < 1e-12 and float(flat.value(X)) == 2.5
    twice = fit(torch.cat([POINTS, POINTS]), torch.cat([VALUES, VALUES]), noise=1e-18)
    assert twice.gradient(X).isfinite().all()

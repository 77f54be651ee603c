from __future__ import annotations

import torch

from anyorder.federated.features import RandomFeatures
from anyorder.linalg.gaussian_process import fit

generator = torch.Generator().manual_seed(0)
POINTS = torch.rand(30, 4, dtype=torch.float64, generator=generator)
X = torch.full((4,), 0.5, dtype=torch.float64)


def test_products_of_features_approximate_the_kernel() -> None:
    exact = torch.exp(-torch.cdist(POINTS, POINTS).square() / (2 * 0.7**2))

    def error(count: int) -> float:
        features = RandomFeatures(4, count)(POINTS, 0.7)
        return float((features @ features.T - exact).square().mean().sqrt())

    assert error(20_000) < 0.02
    assert 4 < error(200) / error(20_000) < 25  # the root of 100, up to chance


def test_the_gradient_is_that_of_the_model() -> None:
    features = RandomFeatures(4, 50, seed=3)
    weights = torch.randn(50, dtype=torch.float64, generator=generator)
    x = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad((features(x[None], 0.7) @ weights).sum(), x)
    torch.testing.assert_close(features.gradient(weights, X, 0.7), expected)


def test_ridge_regression_approaches_the_gaussian_process() -> None:
    values = torch.sin(2 * POINTS).sum(1)
    features = RandomFeatures(4, 20_000)
    weights = features.fit(POINTS, values, 0.8, 1e-2)
    exact = fit(POINTS, values, noise=1e-2, length=0.8).gradient(X)
    torch.testing.assert_close(features.gradient(weights, X, 0.8), exact, rtol=0.1, atol=0.1)


def test_clients_with_one_seed_have_the_same_features() -> None:
    first, same, other = RandomFeatures(4, 10, 1), RandomFeatures(4, 10, 1), RandomFeatures(4, 10)
    assert torch.equal(first(POINTS, 1.0), same(POINTS, 1.0))
    assert not torch.equal(first(POINTS, 1.0), other(POINTS, 1.0))

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from anyorder.nn import certified_accuracy, certify
from anyorder.nn.smoothing import Certificate, SmoothingError, lower_bound


def halves(x: Tensor) -> Tensor:
    """Class 1 where the first coordinate is positive."""
    return (x[:, 0] > 0).long()


@pytest.mark.parametrize(("k", "n"), [(1, 10), (7, 10), (10, 10), (990, 1000), (1, 1)])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.5])
def test_the_bound_is_where_the_binomial_tail_is_alpha(k: int, n: int, alpha: float) -> None:
    bound = lower_bound(k, n, alpha)
    assert stats.binom.sf(k - 1, n, bound) == pytest.approx(alpha, rel=1e-9)
    exact = stats.binomtest(k, n, alternative="greater").proportion_ci(1 - alpha, "exact").low
    assert bound == pytest.approx(exact, rel=1e-9)


def test_bounds_at_the_ends() -> None:
    assert lower_bound(0, 50, 0.01) == 0.0
    assert lower_bound(50, 50, 0.01) == pytest.approx(0.01 ** (1 / 50), rel=1e-12)


def test_the_bound_covers_the_truth_as_often_as_it_says() -> None:
    n, p, alpha = 30, 0.7, 0.1
    bounds = np.array([lower_bound(k, n, alpha) for k in range(n + 1)])
    missed = stats.binom.pmf(np.arange(n + 1), n, p)[bounds > p].sum()
    assert 0.03 < missed <= alpha


def test_radii_of_a_half_space_are_below_the_distance() -> None:
    distances = torch.tensor([-0.6, -0.2, 0.0, 0.2, 0.6])
    points = torch.stack([distances, torch.zeros(5), torch.ones(5)], 1)
    found = certify(halves, points, sigma=0.4, samples=2000)
    for distance, certificate in zip(distances.tolist(), found, strict=True):
        if distance == 0.0:
            assert certificate.label is None and certificate.radius == 0.0
            continue
        assert certificate.label == int(distance > 0)
        assert 0 < certificate.radius <= abs(distance) + 1e-6
        mean = stats.norm.cdf(abs(distance) / 0.4)
        spread = 4 * math.sqrt(mean * (1 - mean) / 2000)
        assert abs(certificate.votes / 2000 - mean) < spread
        expected = 0.4 * stats.norm.ppf(lower_bound(certificate.votes, 2000, 0.001))
        assert certificate.radius == pytest.approx(expected)


def test_the_largest_radius_follows_from_the_number_of_samples() -> None:
    (found,) = certify(lambda x: torch.full((len(x),), 3), torch.zeros(1, 2), sigma=0.25)
    assert (found.label, found.votes) == (3, 10_000)
    assert found.radius == pytest.approx(0.25 * stats.norm.ppf(0.001 ** (1 / 10_000)))


def test_noise_depends_on_seed_and_place_only() -> None:
    sizes: list[int] = []

    def watched(x: Tensor) -> Any:
        sizes.append(len(x))
        return halves(x).numpy()

    x = torch.tensor([[0.1, 0.0], [0.1, 0.0]])
    found = [certify(watched, x, sigma=0.5, samples=350, rows=r) for r in (1000, 200, 30)]
    assert found[0] == found[1] == found[2]
    assert found[0][0] != found[0][1]  # equal inputs have different noise
    assert found[0] != certify(watched, x, sigma=0.5, samples=350, seed=1)
    assert max(sizes[-30:]) <= 500 and min(sizes) == 10


def test_certified_accuracy_counts_what_is_right_and_wide_enough() -> None:
    found = [
        Certificate(1, 0.5, 9, 9),
        Certificate(2, 0.3, 9, 9),
        Certificate(None, 0.0, 5, 9),
        Certificate(0, 0.9, 9, 9),
    ]
    labels = [1, 2, 0, 1]
    assert certified_accuracy(found, labels) == 0.5
    assert certified_accuracy(found, torch.tensor(labels), 0.3) == 0.5
    assert certified_accuracy(found, labels, 0.31) == 0.25
    assert certified_accuracy(found, labels, 0.6) == 0.0
    with pytest.raises(SmoothingError, match="4 certificates and 3 labels"):
        certified_accuracy(found, labels[:3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0.0}, "sigma: expected a standard deviation > 0"),
        ({"samples": 0}, "samples: expected a whole number >= 1"),
        ({"selection": 2.5}, "selection: expected a whole number >= 1"),
        ({"alpha": 1.0}, r"alpha: expected a probability in \(0, 1\)"),
        ({"inputs": torch.zeros(2, 2, dtype=torch.long)}, "inputs: expected a real tensor"),
        ({"classify": lambda x: x}, r"expected 200 labels, whole numbers >= 0 of shape \(200,\)"),
        ({"classify": lambda x: halves(x) - 1}, "whole numbers >= 0"),
    ],
)
def test_what_does_not_fit(options: dict[str, Any], message: str) -> None:
    arguments = {"classify": halves, "inputs": torch.zeros(1, 2), "sigma": 0.5, "samples": 100}
    with pytest.raises(SmoothingError, match=message):
        certify(**{**arguments, **options})


def test_bounds_of_impossible_counts() -> None:
    with pytest.raises(SmoothingError, match="between 0 and trials"):
        lower_bound(5, 4, 0.1)

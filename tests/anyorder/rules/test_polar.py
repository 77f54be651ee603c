"""The polar factor: against the decomposition by hand, its bound, and degenerate matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anyorder.rules import polar as module
from anyorder.rules.polar import polar, polar_all


def by_hand(matrix: Tensor) -> Tensor:
    """``A (A'A)^(-1/2)`` through eigenvalues, for full column rank."""
    sizes, vectors = torch.linalg.eigh(matrix.mT @ matrix)
    return matrix @ vectors @ torch.diag(sizes.rsqrt()) @ vectors.mT


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("method", ["svd", "newton-schulz"])
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (7, 1), (1, 6), (1, 1), (60, 40)])
def test_equals_the_factor_by_hand(method: module.Polar, shape: tuple[int, int]) -> None:
    a = random(*shape)
    expected = by_hand(a) if shape[0] >= shape[1] else by_hand(a.mT).mT
    torch.testing.assert_close(polar(a, method), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["svd", "newton-schulz"])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_size_does_not_matter(method: module.Polar, scale: float) -> None:
    a = random(6, 4).float()
    found = polar(a * scale, method)
    torch.testing.assert_close(found, polar(a, "svd"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["svd", "newton-schulz"])
def test_what_is_zero_stays_zero(method: module.Polar) -> None:
    assert torch.equal(polar(torch.zeros(3, 2), method), torch.zeros(3, 2))
    u, v = random(5, 1), random(1, 4, seed=1)
    expected = (u / u.norm()) @ (v / v.norm())  # rank one: nothing is made up beside it
    torch.testing.assert_close(polar(u @ v, method), expected, rtol=1e-9, atol=1e-9)
    assert polar(torch.zeros(0, 3), method).shape == (0, 3)


@pytest.mark.parametrize("method", ["svd", "newton-schulz"])
def test_no_singular_value_exceeds_one(method: module.Polar) -> None:
    """Also where the iteration has not converged, down to the smallest singular values."""
    sizes = torch.logspace(-12, 0, 30, dtype=torch.float64)
    left, right = torch.linalg.qr(random(30, 30))[0], torch.linalg.qr(random(30, 30, seed=2))[0]
    found = torch.linalg.svdvals(polar(left @ torch.diag(sizes) @ right, method))
    assert found.max() <= 1 + 1e-12
    assert found[:13].min() > 1 - 1e-9


def test_products_reach_the_singular_values_they_promise() -> None:
    sizes = torch.logspace(-8, 0, 200, dtype=torch.float64)
    found = polar(torch.diag(sizes), "newton-schulz").diagonal()
    share = sizes / sizes.norm()
    assert (found[share > 3e-6] - 1).abs().max() < 1e-9
    assert found[share < 1e-7].max() < 0.9


def test_the_exact_way_is_taken_while_matrices_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    a = random(6, 4)
    assert torch.equal(polar(a), polar(a, "svd"))
    monkeypatch.setitem(module.EXACT_SIDE, "cpu", 3)
    assert torch.equal(polar(a), polar(a, "newton-schulz"))


def test_several_matrices_of_several_shapes_keep_their_places() -> None:
    given = [random(3, 2), random(2, 3), random(3, 2, seed=5), random(3, 2, seed=6).float()]
    for found, a in zip(polar_all(given), given, strict=True):
        assert found.dtype is a.dtype
        torch.testing.assert_close(found, polar(a))
    assert polar_all([]) == []

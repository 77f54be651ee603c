"""Every function against its definition: gradient, conjugate, dual norm, subgradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor

from anyorder.rules.kappa import NAMES, Kappa, kappa, matrix

P, THRESHOLD = 3.0, 0.4


def make(name: str) -> Kappa:
    return kappa(name, p=P, threshold=THRESHOLD)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape))


def value_by_hand(name: str, v: np.ndarray) -> float:
    """The table of the paper, element by element."""
    flat = [float(x) for x in v.ravel()]
    rows = v.reshape(v.shape[0], -1)
    huber = [x * x / (2 * THRESHOLD) if abs(x) <= THRESHOLD else abs(x) - THRESHOLD / 2
             for x in flat]  # fmt: skip
    return {
        "l1": sum(abs(x) for x in flat),
        "l2": math.sqrt(sum(x * x for x in flat)),
        "lp": sum(abs(x) ** P for x in flat) ** (1 / P),
        "squared": sum(x * x for x in flat) / 2,
        "huber": sum(huber),
        "soft": sum(max(abs(x) - THRESHOLD, 0.0) for x in flat),
        "group": sum(math.sqrt(sum(float(x) ** 2 for x in row)) for row in rows),
        "spectral": float(np.linalg.norm(rows, "nuc")),
    }[name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 2, 3), (6,)])
def test_values_are_those_of_the_definition(name: str, shape: tuple[int, ...]) -> None:
    v = random(*shape)
    assert float(make(name).value(v)) == pytest.approx(value_by_hand(name, v.numpy()), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 2, 3), (6,), ()])
def test_gradients_are_those_of_the_values(name: str, shape: tuple[int, ...]) -> None:
    of, v = make(name), random(*shape)
    found = of.gradient(v)
    assert found.shape == v.shape
    for place in np.ndindex(shape):
        step = torch.zeros_like(v)
        step[place] = 1e-6
        slope = float(of.value(v + step) - of.value(v - step)) / 2e-6
        assert float(found[place]) == pytest.approx(slope, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_where_there_are_many_gradients_it_is_still_one(name: str) -> None:
    """``kappa(w) >= kappa(v) + gradient . (w - v)`` at zero and at points with zeros in them."""
    of = make(name)
    kinked = random(4, 3)
    kinked[1] = 0
    for v in (torch.zeros(4, 3, dtype=torch.float64), kinked):
        gradient = of.gradient(v)
        for seed in range(50):
            w = random(4, 3, seed=seed) * 2
            below = of.value(v) + (gradient * (w - v)).sum()
            assert float(of.value(w)) >= float(below) - 1e-12
    assert not of.gradient(torch.zeros(4, 3)).any()


@pytest.mark.parametrize("name", NAMES)
def test_conjugate_is_the_supremum(name: str) -> None:
    """Found by a numerical maximiser inside the ball; at least as large at all points tried."""
    of = make(name)
    y = random(3, 2, seed=3)
    y = y * (0.7 / float(of.dual(y))) if of.dual is not None else y

    def below(flat: np.ndarray) -> float:
        v = torch.tensor(flat).reshape(3, 2)
        return float(of.value(v) - (v * y).sum())

    starts = [np.zeros(6), *(random(6, seed=s).numpy() for s in range(4))]
    found = max(
        -optimize.minimize(below, start, method=method, options={"maxiter": 8000}).fun
        for start in starts
        for method in ("Powell", "Nelder-Mead")
    )
    assert of.conjugate(y) == pytest.approx(found, abs=2e-4)
    assert of.conjugate(y) >= found - 1e-9


@pytest.mark.parametrize("name", [n for n in NAMES if n != "squared"])
def test_conjugate_is_infinite_outside_the_ball(name: str) -> None:
    """Because ``v . y - kappa(v)`` grows without bound along some ray."""
    of = make(name)
    assert of.dual is not None
    y = random(4, 3, seed=4)
    y = y * (1.01 / float(of.dual(y)))
    assert of.conjugate(y) == math.inf
    assert of.conjugate(y, slack=0.02) < math.inf
    assert of.conjugate(y / 1.02) < math.inf
    rays = [random(4, 3, seed=s) for s in range(2000)] + [_steepest(name, y)]
    gains = [float((r * y).sum() / _slope(of, r)) for r in rays]
    assert max(gains) == pytest.approx(1.01, rel=1e-9)  # the last, along which 1.01 is reached


def _slope(of: Kappa, ray: Tensor) -> float:
    """How fast the value grows along a ray, far out."""
    return float(of.value(ray * 1e9) / 1e9) * (1 + 1e-15)


def _steepest(name: str, y: Tensor) -> Tensor:
    """A direction for which ``v . y`` equals the norm times the dual norm."""
    if name in ("l1", "huber", "soft"):
        only = torch.zeros_like(y)
        place = y.abs().flatten().argmax()
        only.view(-1)[place] = y.view(-1)[place].sign()
        return only
    if name == "group":
        only = torch.zeros_like(y)
        row = int(y.norm(dim=1).argmax())
        only[row] = y[row]
        return only
    if name == "spectral":
        left, _, right = torch.linalg.svd(y)
        return left[:, :1] @ right[:1]
    q = 2.0 if name == "l2" else P / (P - 1)
    return y.sign() * y.abs() ** (q - 1)


@pytest.mark.parametrize("name", NAMES)
def test_fenchel_and_young(name: str) -> None:
    """``kappa(v) + kappa*(y) >= v . y``, with equality where y is the gradient at v."""
    of = make(name)
    for seed in range(20):
        v = random(4, 3, seed=seed)
        y = of.gradient(v)
        total = float(of.value(v)) + of.conjugate(y, slack=1e-9)
        assert total == pytest.approx(float((v * y).sum()), rel=1e-9)
        other = of.gradient(random(4, 3, seed=seed + 100)) * 0.9
        assert float(of.value(v)) + of.conjugate(other, 1e-9) >= float((v * other).sum()) - 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_even_and_some_look_at_one_element_at_a_time(name: str) -> None:
    of, v = make(name), random(4, 3)
    torch.testing.assert_close(of.gradient(-v), -of.gradient(v))
    assert float(of.value(-v)) == pytest.approx(float(of.value(v)))
    alone = torch.stack([of.gradient(x) for x in v.flatten()]).reshape(4, 3)
    assert torch.allclose(alone, of.gradient(v)) == (name in ("l1", "squared", "huber", "soft"))


def test_limits_of_exponents_and_widths() -> None:
    v = random(4, 3)
    sign = v.sign()
    torch.testing.assert_close(kappa("lp", p=1.0).gradient(v), sign)
    torch.testing.assert_close(kappa("lp", p=2.0).gradient(v), kappa("l2").gradient(v))
    assert float(kappa("lp", p=1.0).value(v)) == pytest.approx(float(kappa("l1").value(v)))
    torch.testing.assert_close(kappa("huber", threshold=1e-12).gradient(v), sign)
    torch.testing.assert_close(kappa("soft", threshold=0.0).gradient(v), sign)
    wide = kappa("huber", threshold=1e3)
    torch.testing.assert_close(wide.gradient(v), v / 1e3)


@pytest.mark.parametrize("name", ["l2", "lp", "group", "spectral"])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_maps_of_norms_do_not_care_for_size(name: str, scale: float) -> None:
    v = random(4, 3).float()
    found = make(name).gradient(v * scale)
    torch.testing.assert_close(found, make(name).gradient(v), rtol=1e-4, atol=1e-5)


def test_rows_belong_to_the_first_index() -> None:
    v = random(4, 2, 3)
    assert torch.equal(matrix(v), v.reshape(4, 6))
    assert matrix(random(5)).shape == (5, 1)
    assert matrix(torch.tensor(2.0)).shape == (1, 1)
    rows = make("group").gradient(v).reshape(4, 6)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(make("group").gradient(random(5)), random(5).sign())
    vector = random(5)
    torch.testing.assert_close(make("spectral").gradient(vector), vector / vector.norm())


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (7, 1), (1, 6)])
def test_spectral_is_the_polar_factor(shape: tuple[int, int]) -> None:
    """``A (A'A)^(-1/2)`` through eigenvalues, on the side where that inverse exists."""
    a = random(*shape)
    tall = a if shape[0] >= shape[1] else a.mT
    sizes, vectors = torch.linalg.eigh(tall.mT @ tall)
    expected = tall @ vectors @ torch.diag(sizes.rsqrt()) @ vectors.mT
    found = make("spectral").gradient(a)
    torch.testing.assert_close(found if tall is a else found.mT, expected, rtol=1e-9, atol=1e-9)


def test_spectral_makes_nothing_up_beside_a_matrix_of_rank_one() -> None:
    u, v = random(5, 1), random(1, 4, seed=1)
    expected = (u / u.norm()) @ (v / v.norm())
    torch.testing.assert_close(make("spectral").gradient(u @ v), expected, rtol=1e-9, atol=1e-9)

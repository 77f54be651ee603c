"""Directions: pure functions of their seeds, right in law, equal however they are made."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from anyorder.engine import Engine
from anyorder.points import directions
from anyorder.points.directions import BLOCK, Dense, Law, Seeded, Shift, blocks, shifted_by

EAGER = Engine("eager")
LAWS: tuple[Law, ...] = ("normal", "rademacher")


def naive(seed: Seeded, name: str, n: int) -> np.ndarray:
    """The definition, element by element with Python integers and the real functions."""
    low, high = seed.keys(name)
    mask = 0xFFFFFFFF

    def mix(x: int, key: int) -> int:
        x &= mask
        x ^= x >> 16
        x = (x * 0x7FEB352D & mask) ^ (key & mask)
        x ^= x >> 15
        x = x * 0x846CA68B & mask
        return x ^ x >> 16

    out = np.empty(n)
    for start in range(0, n, BLOCK):
        length = min(BLOCK, n - start)
        for i in range(length):
            half = length // 2
            pair = start // 2 + (i if i < half else i - half)
            cosine = i < half
            if length % 2 and i == length - 1:
                pair, cosine = start // 2 + half, True
            first = mix(pair ^ low, high)
            second = mix(first ^ high, low)
            if seed.law == "rademacher":
                out[start + i] = 2.0 * ((first if cosine else second) & 1) - 1
                continue
            if seed.law == "uniform":
                out[start + i] = (((first if cosine else second) & 0x7FFFFF) + 0.5) / 2**23
                continue
            uniform = ((first & 0x7FFFFF) + 0.5) / 2**23
            signed = second - 2**32 if second >= 2**31 else second
            angle = 2 * math.pi * (signed >> 8) / 2**24
            radius = math.sqrt(-2 * math.log(uniform))
            out[start + i] = radius * (math.cos(angle) if cosine else math.sin(angle))
    return out


@pytest.mark.parametrize("law", [*LAWS, "uniform"])
@pytest.mark.parametrize("n", [1, 2, 3, 10, 501, BLOCK + 7])
def test_equals_the_definition(law: Law, n: int) -> None:
    seed = Seeded(3, 1, 4, law)
    made = seed.tensor("layer.weight", torch.zeros(n))
    assert np.allclose(made.numpy(), naive(seed, "layer.weight", n), atol=2e-5)


@pytest.mark.parametrize(
    ("law", "mode"),
    [
        ("normal", "eager"),
        pytest.param("normal", "compiled", marks=pytest.mark.slow),  # half a minute of compiling
        ("rademacher", "eager"),
        ("rademacher", "compiled"),
        ("uniform", "eager"),
    ],
)
def test_many_at_once_are_what_each_is_alone(law: Law, mode: Any) -> None:
    like = {"a": torch.zeros(7, 3), "b": torch.zeros(8), "c": torch.zeros(()), "d": torch.zeros(0)}
    seed = Seeded(1, 2, 3, law)
    for name, z in seed.many(like, Engine(mode)).items():
        assert torch.equal(z, seed.tensor(name, like[name]))


@pytest.mark.slow
def test_compiled_blocks_have_the_bits_of_eager_ones() -> None:
    like, seed = torch.randn(BLOCK + 31), Seeded(5, 6)
    assert torch.equal(
        seed.shifted("x", like, 0.1, EAGER), seed.shifted("x", like, 0.1, Engine("compiled"))
    )


def test_every_part_of_the_seed_matters_and_nothing_else() -> None:
    like = torch.zeros(1000)
    base = Seeded(1, 2, 3).tensor("x", like)
    torch.manual_seed(99)
    assert torch.equal(base, Seeded(1, 2, 3).tensor("x", like.double()).float())
    others = [
        Seeded(2, 2, 3).tensor("x", like),
        Seeded(1, 3, 3).tensor("x", like),
        Seeded(1, 2, 4).tensor("x", like),
        Seeded(1, 2, 3).tensor("y", like),
        Seeded(12, 3, 3).tensor("x", like),
        Seeded(1, 23, 3).tensor("x", like),
    ]
    for a, b in itertools.combinations([base, *others], 2):
        assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 0.15


def test_global_generators_are_not_touched() -> None:
    before = torch.get_rng_state()
    Seeded(0, 0).tensor("x", torch.zeros(100))
    assert torch.equal(before, torch.get_rng_state())


def test_law_of_the_normal_direction() -> None:
    z = torch.cat([Seeded(0, s).tensor("w", torch.zeros(BLOCK)) for s in range(8)]).double().numpy()
    n = len(z)
    for moment, expected in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15)):
        spread = math.sqrt(stats.norm.moment(2 * moment) - stats.norm.moment(moment) ** 2)
        assert abs((z**moment).mean() - expected) < 5 * spread / math.sqrt(n), moment
    assert stats.kstest(z[::8], "norm").pvalue > 1e-3
    half = z.reshape(-1, BLOCK)
    left, right = half[:, : BLOCK // 2].ravel(), half[:, BLOCK // 2 :].ravel()
    for a, b in ((left, right), (left**2, right**2), (z[:-1], z[1:]), (z[:-1] ** 2, z[1:] ** 2)):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(len(a))


def test_probe_statistics_of_the_signs() -> None:
    z = torch.stack(
        [Seeded(0, s, 0, "rademacher").tensor("w", torch.zeros(64)) for s in range(4000)]
    )
    assert set(z.unique().tolist()) == {-1.0, 1.0}
    second = (z.T @ z / len(z)).double()
    assert float((second - torch.eye(64)).abs().max()) < 6 / math.sqrt(len(z))
    assert float(z.mean(0).abs().max()) < 6 / math.sqrt(len(z))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    w, seed = torch.randn(999).to(dtype), Seeded(1, 1)
    z = seed.tensor("w", torch.zeros(999))
    made = seed.shifted("w", w, 0.25, EAGER)
    assert made.dtype == dtype
    wide = torch.promote_types(dtype, torch.float32)
    assert torch.equal(made, (w.to(wide) + z.to(wide) * 0.25).to(dtype))


def test_shifted_leaves_its_argument_and_any_layout_gives_the_same() -> None:
    w = torch.randn(300, 40)
    before, seed = w.clone(), Seeded(4, 4)
    made = seed.shifted("w", w, 1.0, EAGER)
    turned = seed.shifted("w", w.t().contiguous().t(), 1.0, EAGER)
    assert torch.equal(w, before) and torch.equal(made, turned)


def test_in_place_over_small_large_and_strided_targets() -> None:
    seed = Seeded(9, 9)
    targets = {"a": torch.zeros(5), "b": torch.zeros(100, 60), "c": torch.zeros(70, 80).t()}
    seed.add_all_(targets, 2.0, EAGER)
    for name, target in targets.items():
        expected = seed.tensor(name, torch.zeros(target.shape)) * 2.0
        assert torch.equal(target, expected)


def test_dense_directions() -> None:
    v = {"x": torch.tensor([1.0, -2.0])}
    x = torch.tensor([1.0, 1.0], dtype=torch.bfloat16)
    assert Dense(v).shifted("x", x, 0.5, EAGER).tolist() == [1.5, 0.0]
    Dense(v).add_all_({"x": x}, 0.5, EAGER)
    assert x.tolist() == [1.5, 0.0]
    assert shifted_by(x, v["x"], 0.0).tolist() == [1.5, 0.0]


def test_a_shift_of_nothing_is_no_shift() -> None:
    assert not Shift() and not Shift(0.0, Seeded(0, 0)) and Shift(1.0, Seeded(0, 0))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 3 * BLOCK))
def test_blocks_cover_a_tensor(n: int) -> None:
    pieces = list(blocks(torch.arange(n)))
    assert sum(p.numel() for _, p in pieces) == n
    assert all(int(p[0]) == start for start, p in pieces if p.numel())


@pytest.mark.parametrize("law", LAWS)
def test_directions_do_not_follow_the_mode_they_are_made_in(law: Law, user_mode: Any) -> None:
    like = {"a": torch.zeros(7, 3), "b": torch.zeros(9)}
    large, seed = torch.ones(BLOCK + 3), Seeded(4, 5, 6, law)

    def made() -> list[torch.Tensor]:
        return [*seed.many(like, EAGER).values(), seed.shifted("w", large, 0.5, EAGER)]

    expected = made()
    directions._few.cache_clear()
    directions._pack.cache_clear()
    with user_mode():
        found = made()
    assert all(map(torch.equal, found, expected))
    assert [t.dtype for t in found] == [t.dtype for t in expected]
    # What is kept can be used in a graph later on.
    kept = seed.many(like, EAGER)["a"]
    weight = torch.ones(7, 3, requires_grad=True)
    (weight * kept).sum().backward()
    assert weight.grad is not None and torch.equal(weight.grad, expected[0])

"""Formats of state: the published table, nearest codes, rounding without bias, sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from anyorder.engine import formats as precision
from anyorder.engine.formats import (
    PLAIN,
    SMALLEST_8BIT,
    STOCHASTIC,
    Blockwise,
    Plain,
    Stochastic,
    decode,
    encode,
    format_for,
    middles,
    noise_for,
    starts,
    table,
)

# The published map, from its definition ------------------------------------------------------


def published(signed: bool) -> list[float]:
    """The map as the authors make it: midpoints of equal cells of [0.1, 1], times a power of 10."""
    values = [0.0, 1.0]
    for decade in range(7):
        cells = 2**decade if signed else 2 ** (decade + 1)
        edges = np.linspace(0.1, 1.0, cells + 1, dtype=np.float32)
        means = (edges[:-1] + edges[1:]) / np.float32(2)
        made = (np.float32(10.0 ** (decade - 6)) * means).tolist()
        values += made + ([-v for v in made] if signed else [])
    return sorted(values)


@pytest.mark.parametrize("signed", [True, False])
def test_the_table_is_the_published_map_to_float_precision(signed: bool) -> None:
    ours, theirs = table(signed).tolist(), published(signed)
    assert len(ours) == len(theirs) == 256
    np.testing.assert_allclose(ours, theirs, rtol=3e-7, atol=0)


def test_the_tables_landmarks() -> None:
    signed, unsigned = table(True), table(False)
    assert signed[-1] == unsigned[-1] == 1.0
    assert signed[0].item() == pytest.approx(-0.99297, abs=1e-5)  # minus one is not in it
    assert (signed < 0).sum() == 127 and (signed > 0).sum() == 128
    assert unsigned[0] == 0.0 and unsigned[1].item() == pytest.approx(3.25e-7)
    assert ((unsigned >= 0.1) & (unsigned < 1)).sum() == 128


# Codes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [True, False])
def test_every_code_is_the_nearest(signed: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    wide = 10.0 ** (-9 * torch.rand(200_000, generator=rng))
    even = torch.rand(200_000, generator=rng)
    edges = middles(signed)[:255]
    around = torch.stack(
        [edges, edges.nextafter(torch.tensor(-2.0)), edges.nextafter(torch.tensor(2.0))]
    )
    x = torch.cat([wide, even, around.flatten(), table(signed), torch.tensor([0.0, 1.0])])
    x = torch.cat([x, -x]).clamp(-1, 1) if signed else x.abs()
    distance = (table(signed).double()[encode(x, signed).long()] - x.double()).abs()
    places = torch.searchsorted(table(signed), x).clamp(1, 255)
    lower, upper = table(signed).double()[places - 1], table(signed).double()[places]
    best = torch.minimum((lower - x).abs(), (upper - x).abs())
    # Places are computed in float32, on a scale that runs from 1 to 2 in a decade: rounding moves a
    # middle by up to 2**-23 * 0.9 of a decade's end, of which x may be a tenth; both ends count.
    assert bool((distance <= best + 2 * 2.0**-23 * 0.9 / 0.1 * x.abs()).all())


@pytest.mark.parametrize("signed", [True, False])
def test_looking_up_and_computing_give_the_same_bits(signed: bool) -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(decode(codes, signed), precision._decoded(codes, signed))
    middle = middles(signed)[:255].view(torch.int32)
    near = torch.stack([middle + offset for offset in range(-5, 6)]).view(torch.float32).flatten()
    wide = 10.0 ** (-12 * torch.rand(500_000, generator=torch.Generator().manual_seed(1)))
    x = torch.cat([near, wide, torch.linspace(0, 1, 500_000), torch.tensor([1e-40, 0.0, 1.0])])
    x = torch.cat([x, -x]).clamp(-1, 1)  # what should not be negative becomes zero
    assert torch.equal(encode(x, signed), precision._encoded(x, signed))


@pytest.mark.parametrize("signed", [True, False])
def test_what_the_table_holds_is_kept_exactly(signed: bool) -> None:
    form = Blockwise(signed, 256)
    values = table(signed).view(1, 256) * 3.0
    stored = form.zeros(256, values)
    form.write_(stored, values, None)
    assert torch.equal(form.read(stored), table(signed).view(1, 256) * 3.0)
    assert sorted(stored[0].flatten().tolist()) == list(range(256))


def naive(values: np.ndarray, signed: bool, block: int) -> np.ndarray:
    """Quantise and back, element by element, by trying all 256 values."""
    levels = np.array(table(signed).tolist())
    found = np.empty_like(values)
    for start in range(0, len(values), block):
        part = values[start : start + block]
        most = max(abs(v) for v in part)
        for i, v in enumerate(part):
            share = v / most if most else 0.0
            level = levels[np.argmin(abs(levels - share))]
            if not signed and v > 0:
                level = max(level, levels[1])
            found[start + i] = level * most
    return found


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("block", [256, 2048])
def test_blocks_equal_the_definition(signed: bool, block: int) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=2 * block) * 10.0 ** rng.uniform(-8, 2, size=2 * block)
    values = values if signed else values**2
    values[:block] *= 1e-6
    single = values.astype(np.float32)
    form = Blockwise(signed, block)
    rows = torch.from_numpy(single).view(2, block)
    stored = form.zeros(2 * block, rows)
    form.write_(stored, rows, None)
    expected = naive(single.astype(np.float64), signed, block)
    np.testing.assert_allclose(form.read(stored).flatten(), expected, rtol=1e-5, atol=0)


def test_a_block_of_zeros_stays_one() -> None:
    for signed in (True, False):
        form = Blockwise(signed, 256)
        stored = form.zeros(600, torch.zeros(1))
        assert stored[0].shape == (3, 256)
        assert torch.equal(form.read(stored), torch.zeros(3, 256))
        form.write_(stored, torch.zeros(3, 256), None)
        assert torch.equal(form.read(stored), torch.zeros(3, 256))


def test_a_positive_second_moment_never_becomes_zero() -> None:
    form = Blockwise(False, 256)
    values = torch.full((1, 256), 1e-20)
    values[0, 0], values[0, 1] = 1.0, 0.0
    stored = form.zeros(256, values)
    form.write_(stored, values, None)
    read = form.read(stored)[0]
    assert read[1] == 0.0
    assert bool((read[2:] > 0).all())


@given(st.lists(st.floats(-(2.0**90), 2.0**90, width=32), min_size=1, max_size=256))
def test_error_is_bounded_by_the_block(values: list[float]) -> None:
    row = torch.tensor(values + [values[-1]] * (256 - len(values))).view(1, 256)
    form = Blockwise(True, 256)
    stored = form.zeros(256, row)
    form.write_(stored, row, None)
    # Half of the widest gap of the table: the cells of [0.1, 1] have a width of 0.9 / 64.
    assert (form.read(stored) - row).abs().max() <= 0.0071 * row.abs().max()


# bfloat16 --------------------------------------------------------------------------------------


def rounded(values: Tensor, low: int) -> Tensor:
    form = Stochastic()
    stored = form.zeros(values.numel(), values)
    keys = [torch.tensor(k) for k in (low, 7, 0)]
    form.write_(stored, values, noise_for(values.numel(), *keys, values.device))
    return form.read(stored)


def test_rounding_goes_to_a_neighbour_and_is_right_on_average() -> None:
    value = 1.0 + 2.0**-7 * 0.3
    found = rounded(torch.full((200_000,), value), 5)
    assert set(found.tolist()) == {1.0, 1.0 + 2.0**-7}
    share = (found > 1).double().mean().item()
    assert share == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / 200_000))


def test_what_bfloat16_holds_is_kept() -> None:
    exact = torch.randn(1000).bfloat16().float()
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf])
    for values in (exact, special):
        assert torch.equal(rounded(values, 9), values)


def test_negative_values_are_rounded_without_bias_too() -> None:
    values = -torch.rand(100_000) - 0.5
    error = (rounded(values, 11) - values).double()
    assert abs(error.mean().item()) < 5 * error.std().item() / math.sqrt(100_000)


def test_random_bits_are_even_and_differ_between_keys() -> None:
    first, second = (
        noise_for(100_000, torch.tensor(k), torch.tensor(3), torch.tensor(0), torch.device("cpu"))
        for k in (1, 2)
    )
    for words in (first, second):
        bits = torch.stack([(words >> b) & 1 for b in range(32)]).double().mean(1)
        assert bool(((bits - 0.5).abs() < 5 * 0.5 / math.sqrt(100_000)).all())
    assert (first == second).double().mean() < 1e-3
    later = noise_for(10, torch.tensor(1), torch.tensor(3), torch.tensor(50), torch.device("cpu"))
    assert torch.equal(later, first[50:60])


# Which format ------------------------------------------------------------------------------------


def test_the_format_follows_from_option_size_and_sign() -> None:
    large = SMALLEST_8BIT
    assert format_for("fp32", large, nonnegative=True, block=256) == Plain()
    assert format_for("bf16", 1, nonnegative=True, block=256) == Stochastic()
    assert format_for("8bit", large - 1, nonnegative=True, block=256) == Plain()
    assert format_for("8bit", large, nonnegative=True, block=256) == Blockwise(False, 256)
    assert format_for("8bit", large, nonnegative=False, block=2048) == Blockwise(True, 2048)


@pytest.mark.parametrize("signed", [True, False])
def test_tables_and_state_do_not_follow_the_mode_they_are_made_in(
    signed: bool, user_mode: Callable[[], AbstractContextManager[None]]
) -> None:
    form, like = Blockwise(signed, 4), torch.zeros(2, 4)
    values = torch.tensor([[0.3, 0.0, 1.0, 0.01], [0.2, 0.1, 0.4, 0.5]])

    def stored() -> list[Tensor]:
        kept = form.zeros(8, like)
        form.write_(kept, values, None)
        return [*kept, form.read(kept), table(signed), middles(signed), starts(signed)]

    expected = [t.clone() for t in stored()]
    forget = [table, middles, starts, precision._on]
    for made in forget:
        made.cache_clear()
    try:
        with user_mode():
            found = stored()
        assert all(map(torch.equal, found, expected))
        assert [t.dtype for t in found] == [t.dtype for t in expected]
        for kept in (*found[:2], *found[3:], PLAIN.zeros(3, like)[0], STOCHASTIC.zeros(3, like)[0]):
            assert not kept.is_inference() and kept.device == like.device
    finally:
        for made in forget:
            made.cache_clear()

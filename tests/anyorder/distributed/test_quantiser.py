"""One byte per scalar: levels, clip, running median, and bounds on what a peer can send."""

from __future__ import annotations

import math
import random
import statistics
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyorder.distributed.quantiser import CLIP, LARGEST, LEVELS, SMALLEST, Quantiser, power

LINEAR = [1.0, 3.0, 2.0, 10.0]


def test_linear_levels_by_hand() -> None:
    quantiser = Quantiser("linear", LINEAR)
    assert quantiser.clip() == 4 * 2.0  # the lower median of an even number
    message = quantiser.encode([0.0, 8.0, -8.0, 4.0, 0.04, 1e9, -1e9, math.nan, math.inf])
    assert struct.unpack("9b", message) == (0, 127, -127, 64, 1, 127, -127, -128, -128)
    assert quantiser.decode(message)[:4] == [0.0, 8.0, -8.0, 8.0 * 64 / 127]
    assert quantiser.decode(message)[-2:] == [None, None]


@pytest.mark.parametrize("code", ["linear", "log"])
@given(scalar=st.floats(-7.9, 7.9))
def test_the_nearest_level_is_sent(code: str, scalar: float) -> None:
    quantiser = Quantiser(code, LINEAR)  # type: ignore[arg-type]
    (back,) = quantiser.decode(quantiser.encode([scalar]))
    levels = [quantiser.decode(struct.pack("b", k))[0] for k in range(-127, 128)]
    nearest = min(abs(scalar - level) for level in levels if level is not None)
    if code == "linear":
        assert abs(back - scalar) <= nearest * (1 + 1e-9) + 1e-12
    elif abs(scalar) > quantiser.clip() * power(1 - LEVELS):
        assert abs(abs(back / scalar) - 1) < 2 ** (1 / 16) - 1 + 1e-9


@given(st.floats(1e-9, 1e9))
def test_the_first_step_needs_no_scale(scalar: float) -> None:
    quantiser = Quantiser()
    (back,) = quantiser.decode(quantiser.encode([-scalar]))
    assert abs(back / -scalar - 1) < 2**0.25 - 1 + 1e-9


@pytest.mark.parametrize("code", ["linear", "log"])
@given(message=st.binary(min_size=1, max_size=50))
def test_whatever_a_peer_sends_is_at_most_the_clip(code: str, message: bytes) -> None:
    quantiser = Quantiser(code, LINEAR)  # type: ignore[arg-type]
    scalars = [g for g in quantiser.decode(message) if g is not None]
    assert all(abs(g) <= CLIP[code] * statistics.median_low(LINEAR) for g in scalars)
    quantiser.learn([message])
    assert SMALLEST <= quantiser.clip() <= LARGEST


def test_a_hostile_minority_does_not_move_the_median() -> None:
    rng = random.Random(0)
    honest, attacked = Quantiser(), Quantiser()
    for _ in range(100):
        scalars = [rng.gauss(0, 1) for _ in range(4)]
        honest.learn([honest.encode(scalars)])
        attacked.learn([attacked.encode(scalars), bytes([127])])
    assert attacked.clip() < 1.6 * honest.clip()
    assert honest.clip() == pytest.approx(4 * 0.674, rel=0.2)


@pytest.mark.parametrize("code", ["linear", "log"])
@pytest.mark.parametrize("factor", [1e4, 1e-4])
def test_the_scale_follows_scalars_that_grow_or_shrink(code: str, factor: float) -> None:
    rng = random.Random(1)
    quantiser = Quantiser(code)  # type: ignore[arg-type]
    for step in range(2000):
        size = factor if step > 100 else 1.0
        quantiser.learn([quantiser.encode([size * rng.gauss(0, 1)])])
    assert quantiser.clip() == pytest.approx(CLIP[code] * 0.674 * factor, rel=0.4)


def test_a_flat_loss_leaves_a_usable_scale() -> None:
    quantiser = Quantiser()
    for _ in range(20_000):
        quantiser.learn([quantiser.encode([0.0])])
    assert quantiser.clip() == SMALLEST
    assert quantiser.decode(quantiser.encode([0.0, 1.0])) == [0.0, SMALLEST]


def test_heavy_tails_keep_their_small_scalars_in_logarithmic_code() -> None:
    rng = random.Random(2)
    errors: dict[str, list[float]] = {"linear": [], "log": []}
    for code, found in errors.items():
        quantiser = Quantiser(code)  # type: ignore[arg-type]
        for _ in range(500):
            scalar = rng.gauss(0, 1) / abs(rng.gauss(0, 1))  # Cauchy
            (back,) = quantiser.decode(quantiser.encode([scalar]))
            found.append(abs(back / scalar - 1))
            quantiser.learn([quantiser.encode([scalar])])
    far = {code: sum(error > 0.2 for error in found) for code, found in errors.items()}
    assert far["log"] < far["linear"] / 5


def test_four_bytes_are_exact() -> None:
    quantiser = Quantiser("float32")
    message = quantiser.encode([0.5, -3.0, math.nan])
    assert len(message) == 12
    assert quantiser.decode(message) == [0.5, -3.0, None]


def test_powers_are_those_of_two() -> None:
    assert all(power(k) == pytest.approx(2 ** (k / 8), rel=1e-15) for k in range(-1016, 0))

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyorder_studies.measurement import (
    Measurement,
    StudyError,
    exact,
    jackknife_interval,
    mean_interval,
    range_interval,
    ratio_interval,
)

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30)


def test_a_measurement_is_an_interval_around_a_finite_value() -> None:
    with pytest.raises(StudyError, match="low <= value <= high"):
        Measurement(1.0, 2.0, 3.0, 1)
    with pytest.raises(StudyError, match="finite value"):
        Measurement(math.inf, 0.0, math.inf, 1)
    with pytest.raises(StudyError, match="finite value"):
        Measurement(math.nan, math.nan, math.nan, 1)
    with pytest.raises(StudyError, match="at least one repetition"):
        Measurement(1.0, 1.0, 1.0, 0)


def test_json_keeps_open_ends() -> None:
    for m in (Measurement(1.0, -math.inf, math.inf, 1), Measurement(0.5, 0.25, 0.75, 4)):
        assert Measurement.from_json(m.to_json()) == m
    assert Measurement(1.0, -math.inf, 2.0, 1).to_json()["low"] is None
    with pytest.raises(StudyError, match="value and its n"):
        Measurement.from_json({"value": None, "low": 0.0, "high": 1.0, "n": 1})


def test_mean_interval_is_students() -> None:
    # By hand: mean 3, s = sqrt(2.5), t(4 dof, 0.975) = 2.7764.
    m = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert m.value == 3.0
    assert m.high - m.value == pytest.approx(2.7764 * math.sqrt(2.5) / math.sqrt(5), rel=1e-4)
    assert m.n == 5


def test_one_repetition_leaves_the_interval_open() -> None:
    assert mean_interval([4.0]) == Measurement(4.0, -math.inf, math.inf, 1)
    single = ratio_interval([4.0], [2.0])
    assert (single.value, single.low) == (pytest.approx(2.0), 0.0)
    assert single.high == math.inf


@given(NUMBERS)
def test_intervals_hold_their_value(values: list[float]) -> None:
    for m in (mean_interval(values), range_interval(values)):
        assert m.low <= m.value <= m.high


def test_mean_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = sum(mean_interval(rng.normal(1.0, 2.0, 5).tolist()).overlaps(1.0) for _ in range(2000))
    assert abs(hits / 2000 - 0.95) < 0.015


def test_ratio_interval_is_the_geometric_mean_of_pairs() -> None:
    m = ratio_interval([2.0, 8.0], [1.0, 1.0])
    assert m.value == pytest.approx(4.0)
    flipped = ratio_interval([1.0, 1.0], [2.0, 8.0])
    assert flipped.value == pytest.approx(1 / m.value)
    assert flipped.low == pytest.approx(1 / m.high)
    with pytest.raises(StudyError, match="as many"):
        ratio_interval([1.0], [1.0, 2.0])
    with pytest.raises(StudyError, match="positive"):
        ratio_interval([1.0, -1.0], [1.0, 2.0])


def test_range_interval_does_not_shrink_with_repetitions() -> None:
    rng = np.random.default_rng(2)
    few, many = (range_interval(rng.normal(size=n).tolist()) for n in (200, 20000))
    assert many.high - many.low == pytest.approx(few.high - few.low, rel=0.2)
    assert many.high - many.low == pytest.approx(2 * 1.96, rel=0.05)


def test_jackknife_of_a_mean_is_the_usual_standard_error() -> None:
    # Near a large mean the logarithm is linear, so both must agree.
    values = 100.0 + np.random.default_rng(3).normal(size=30)
    left_out = [float(np.delete(values, i).mean()) for i in range(30)]
    jack, student = (
        jackknife_interval(float(values.mean()), left_out),
        mean_interval(values.tolist()),
    )
    assert jack.low == pytest.approx(student.low, abs=1e-3)
    assert jack.high == pytest.approx(student.high, abs=1e-3)


@pytest.mark.parametrize(
    ("value", "left_out"), [(0.0, [1.0, 1.0]), (1.0, [1.0]), (1.0, [0.0, 1.0])]
)
def test_jackknife_refuses_what_has_no_logarithm(value: float, left_out: list[float]) -> None:
    with pytest.raises(StudyError, match="positive statistic"):
        jackknife_interval(value, left_out)


def test_bad_input_is_refused() -> None:
    with pytest.raises(StudyError, match="non-empty"):
        mean_interval([])
    with pytest.raises(StudyError, match="confidence"):
        mean_interval([1.0, 2.0], confidence=1.0)


def test_exact_has_no_spread() -> None:
    assert exact(3) == Measurement(3.0, 3.0, 3.0, 1)

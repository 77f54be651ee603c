from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from anyorder.compare.stats.differences import (
    PATTERNS,
    crossed_interval,
    effect_size,
    error_of_look,
    holm,
    least_units,
    measurable,
    paired_test,
    patterns_for,
    power,
    relabelling_test,
    snapped,
    units_needed,
)
from anyorder.compare.stats.estimators import StatisticsError

numbers = st.lists(st.integers(-8, 8).map(float), min_size=2, max_size=5)


# --- Tests against all patterns, one by one ------------------------------------------------------


@given(numbers)
@settings(deadline=None)
def test_sign_flips_against_all_patterns(values: list[float]) -> None:
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, values, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(values))
    ]
    expected = sum(each >= abs(sum(values)) for each in sums) / len(sums)
    assert paired_test(values) == pytest.approx(expected)


@given(st.integers(2, 4).flatmap(lambda n: st.tuples(*[st.lists(
    st.integers(-8, 8).map(float), min_size=n, max_size=n)] * 2)))  # fmt: skip
@settings(deadline=None)
def test_relabelling_against_all_splits(pair: tuple[list[float], list[float]]) -> None:
    a, b = pair
    pool, n = np.asarray([*a, *b]), len(a)
    apart = [
        abs(pool[list(split)].mean() - np.delete(pool, list(split)).mean())
        for split in itertools.combinations(range(2 * n), n)
    ]
    observed = abs(np.mean(a) - np.mean(b))
    expected = np.mean([each >= observed - 1e-9 for each in apart])
    assert relabelling_test(a, b) == pytest.approx(expected)
    assert relabelling_test(b, a) == relabelling_test(a, b)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([1.0, 2.0, 3.0], 2 / 8),
        ([1.0] * 6, 2 / 64),
        ([0.0, 0.0, 0.0], 1.0),
        ([1.0, -1.0], 1.0),
        # Sums of all sign patterns of 1, 2, 4: -7 -5 -3 -1 1 3 5 7; six of them reach |3|.
        ([1.0, -2.0, 4.0], 6 / 8),
    ],
)
def test_sign_flips_by_hand(differences: list[float], expected: float) -> None:
    assert paired_test(differences) == expected


def test_many_comparisons_at_once_are_the_same_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 7, 5))
    one_by_one = [relabelling_test(x, y) for x, y in zip(a, b, strict=True)]
    assert relabelling_test(a, b).tolist() == pytest.approx(one_by_one)
    assert paired_test(a - b).tolist() == pytest.approx([paired_test(d) for d in a - b])


@given(numbers, st.randoms(use_true_random=False), st.sampled_from([-1.0, 0.5, 64.0]))
@settings(deadline=None)
def test_order_unit_and_direction_do_not_matter(
    values: list[float], random: object, scale: float
) -> None:
    shuffled = [scale * value for value in values]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    zeros = [0.0] * len(values)
    assert paired_test(values) == paired_test(shuffled)
    assert relabelling_test(values, zeros) == pytest.approx(relabelling_test(shuffled, zeros))


def test_many_pairs_agree_with_the_normal_law() -> None:
    values = np.random.default_rng(5).normal(0.25, 1, size=60)
    z = values.sum() / np.sqrt((values**2).sum())
    assert paired_test(values) == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.02)
    assert paired_test(values) == paired_test(values[::-1])
    assert paired_test(np.ones(40)) == pytest.approx(2 / (PATTERNS + 1))


@pytest.mark.parametrize("test", [paired_test, lambda values: relabelling_test(values, [1.0, 2.0])])
def test_nothing_and_nan_are_refused(test: object) -> None:
    with pytest.raises(StatisticsError, match="at least one number"):
        test([])  # type: ignore[operator]
    with pytest.raises(StatisticsError, match="NaN"):
        test([1.0, math.nan])  # type: ignore[operator]


# --- Rounding and lost runs ----------------------------------------------------------------------


def test_rounding_is_no_difference() -> None:
    a = np.linspace(0.5, 2.0, 10)
    assert snapped(a, a * (1 + 2e-16)).tolist() == a.tolist()
    assert snapped(a, a * (1 + 9e-6)).tolist() == a.tolist()
    assert snapped(a, a * (1 + 2e-5)).tolist() == (a * (1 + 2e-5)).tolist()
    assert snapped(np.array([np.inf, 1.0]), np.array([2.0, np.inf])).tolist() == [2.0, np.inf]
    assert relabelling_test(np.ones(6), np.full(6, 1 + 9e-6)) == 1.0
    assert relabelling_test(np.ones(6), np.full(6, 1 + 2e-5)) == pytest.approx(2 / math.comb(12, 6))


def test_a_lost_run_turns_all_numbers_into_ranks() -> None:
    a, b = np.array([[0.5, np.inf], [2.0, 3.0]]), np.array([[np.inf, 1.0], [4.0, 0.0]])
    x, y = measurable(a, b)
    assert x.tolist() == [[2.0, 7.5], [4.0, 5.0]]
    assert y.tolist() == [[7.5, 3.0], [6.0, 1.0]]
    assert measurable(a[1:], b[1:])[0].tolist() == [[2.0, 3.0]]


# --- Many pairs, many looks ----------------------------------------------------------------------


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    with_gap = holm([math.nan, 0.02])
    assert math.isnan(with_gap[0])
    assert with_gap[1] == 0.02


def test_all_looks_together_spend_five_percent() -> None:
    spent = [error_of_look(look) for look in range(1, 100_000)]
    assert 0.0499 < math.fsum(spent) < 0.05
    assert spent == sorted(spent, reverse=True)


@pytest.mark.parametrize(
    ("pairs", "error", "paired", "units"),
    [
        (1, 0.05, True, 6), (15, 0.05, True, 10), (0, 0.05, True, 6),
        (1, 0.05, False, 4), (3, 0.05, False, 5), (66, 0.05, False, 7),
        (1, error_of_look(1), True, 7), (1, error_of_look(1), False, 4),
        (3, error_of_look(1), False, 5), (1, error_of_look(2), False, 6),
    ],
)  # fmt: skip
def test_least_units_is_the_first_number_that_can_do_it(
    pairs: int, error: float, paired: bool, units: int
) -> None:
    assert least_units(pairs, error, paired=paired) == units

    def best(n: int) -> float:
        """The clearest case there is; Holm multiplies the least p by the number of pairs."""
        p = paired_test(np.ones(n)) if paired else relabelling_test(np.ones(n), np.zeros(n))
        return p * max(pairs, 1)

    assert best(units) <= error
    assert best(units - 1) > error


def test_drawn_patterns_are_enough_for_a_thousand_pairs() -> None:
    pairs, error = 1081, error_of_look(1)
    units = least_units(pairs, error, paired=False)
    patterns = patterns_for(pairs, error)
    p = relabelling_test(np.arange(units) + 99.0, np.arange(units), patterns)
    assert p * pairs <= error
    assert patterns_for(3, error) == PATTERNS


# --- Power ---------------------------------------------------------------------------------------


def test_effect_sizes_by_hand() -> None:
    a, b = np.array([3.0, 5.0]), np.array([1.0, 1.0])
    assert effect_size(a, b, paired=True) == pytest.approx(3 / math.sqrt(2))
    assert effect_size(a, b, paired=False) == pytest.approx(3 / math.sqrt((2 + 0) / 2))
    assert effect_size(b, b, paired=True) == 0.0
    assert effect_size(b + 1, b, paired=False) == math.inf


def test_power_without_an_effect_is_the_error() -> None:
    assert power([2, 5, 50], 0.0, 0.03, paired=True) == pytest.approx([0.03] * 3)
    assert power(8, 0.0, 0.01, paired=False) == pytest.approx(0.01)


def test_units_needed_is_the_first_number_with_enough_power() -> None:
    for paired in (True, False):
        for effect in (0.3, 0.8, 1.5):
            n = units_needed(effect, 3, 0.03, paired=paired)
            assert n is not None
            assert power(n, effect, 0.01, paired=paired) >= 0.8
            assert power(n - 1, effect, 0.01, paired=paired) < 0.8
    assert units_needed(math.inf, 3, 0.03, paired=False) == least_units(3, 0.03, paired=False)
    assert units_needed(0.0, 1, 0.05, paired=True) is None
    assert units_needed(0.01, 1, 0.05, paired=True) is None


# --- Units and rows ------------------------------------------------------------------------------


def test_without_rows_it_is_students_interval() -> None:
    values = np.array([0.1, 0.4, 0.2, 0.7])
    found = crossed_interval(values, [])
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_rows_and_units_add_their_variances() -> None:
    units = np.array([1.0, 2.0, 3.0])
    rows = np.array([0.0, 2.0, 4.0, 2.0])
    within, over = units.var(ddof=1) / 3, rows.var(ddof=1)
    degrees = (within + over) ** 2 / (within**2 / 2 + over**2 / 3)
    half = stats.t.isf(0.025, degrees) * math.sqrt(within + over)
    found = crossed_interval(units, rows)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))
    same = crossed_interval([2.0, 2.0], [])
    assert (same.low, same.high) == (2.0, 2.0)

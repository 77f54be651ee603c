from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from anyorder.compare.stats.estimators import (
    RESAMPLES,
    Band,
    Curve,
    StatisticsError,
    band,
    best_of_k,
    expected_running_time,
    first_hit,
    interval,
    iqm,
    median,
    median_interval,
)

several = st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), min_size=6, max_size=9)


# --- Location ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5.0], 5.0),
        ([1.0, 3.0], 2.0),
        ([0.0, 3.0, 12.0], 0.0 / 6 + 3.0 * 4 / 6 + 12.0 / 6),
        ([-100.0, 1.0, 3.0, 100.0], 2.0),
        # Five values stand for a fifth each: the second and fourth lie 3/4 inside the middle half.
        ([0.0, 1.0, 2.0, 4.0, 9.0], (0.15 * 1 + 0.2 * 2 + 0.15 * 4) / 0.5),
        ([1.0, 2.0, 3.0, math.inf], 2.5),
    ],
)
def test_iqm_by_hand(values: list[float], expected: float) -> None:
    assert iqm(values) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5))
def test_iqm_of_four_copies_is_a_trimmed_mean(values: list[float]) -> None:
    values = values * 4
    assert iqm(values) == pytest.approx(stats.trim_mean(values, 0.25), rel=1e-9, abs=1e-6)


def test_iqm_takes_the_last_axis() -> None:
    table = np.array([[0.0, 3.0, 12.0], [2.0, 2.0, 2.0]])
    assert iqm(table).tolist() == pytest.approx([4.0, 2.0])


def test_more_than_a_quarter_without_result_leaves_no_mean() -> None:
    assert iqm([1.0, 2.0, math.inf]) == math.inf
    assert iqm([1.0, 2.0, 3.0, math.inf]) < math.inf
    assert median([1.0, 2.0, math.inf]) == 2.0


@pytest.mark.parametrize("estimator", [iqm, median, interval, median_interval, best_of_k])
def test_nothing_and_nan_are_refused(estimator: object) -> None:
    with pytest.raises(StatisticsError, match="at least one number"):
        estimator([])  # type: ignore[operator]
    with pytest.raises(StatisticsError, match="NaN"):
        estimator([1.0, math.nan, 2.0])  # type: ignore[operator]


# --- Intervals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5])
def test_fewer_than_six_units_have_no_interval(n: int) -> None:
    assert interval([1.0] * n) is None
    assert median_interval([1.0] * n) is None


def test_equal_runs_leave_no_doubt() -> None:
    found = interval([0.25] * 6)
    assert found is not None
    assert (found.low, found.high) == (0.25, 0.25)


def test_many_runs_agree_with_the_normal_law() -> None:
    values = np.random.default_rng(0).normal(size=400)
    found = interval(values, lambda drawn: drawn.mean(axis=-1))
    assert found is not None
    half = 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert found.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_expanded_percentiles_against_the_exact_bootstrap_of_six() -> None:
    """All 6**6 resamples, cut at Phi(-sqrt(6/5) t) = 0.0024 of the draws on each side."""
    values = np.array([0.0, 1.0, 2.0, 4.0, 9.0, 11.0])
    found = interval(values, median)
    exact = np.sort([np.median(draw) for draw in itertools.product(values, repeat=6)])
    tail = stats.norm.cdf(math.sqrt(6 / 5) * stats.t.ppf(0.025, 5))
    assert tail == pytest.approx(0.0024, abs=1e-4)
    assert found is not None
    ends = exact[int(tail * 6**6)], exact[-1 - int(tail * 6**6)]
    assert (found.low, found.high) == ends


@given(several)
@settings(max_examples=25, deadline=None)
def test_the_interval_of_a_median_is_the_narrowest_pair_of_sorted_values(
    values: list[float],
) -> None:
    """Of ``n`` values, ``k`` or more lie below the median with the chance of ``n`` coins."""
    found, ordered, n = median_interval(values), sorted(values), len(values)
    coins = [sum(math.comb(n, i) for i in range(k)) / 2**n for k in range(n)]
    k = max(k for k in range(1, n) if 2 * coins[k] <= 0.05)
    assert found is not None
    assert (found.low, found.high) == (ordered[k - 1], ordered[n - k])


def test_the_interval_of_a_median_takes_runs_that_never_got_there() -> None:
    found = median_interval([1.0, 2.0, 3.0, 4.0, 5.0, math.inf])
    assert found is not None
    assert (found.low, found.high) == (1.0, math.inf)


def test_a_lost_run_opens_the_interval() -> None:
    found = interval([1.0, 1.1, 0.9, 1.05, 1.02, math.inf])
    assert found is not None
    assert found.low < 1.1
    assert found.high == math.inf


@given(several, st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_units_does_not_matter(values: list[float], random: object) -> None:
    shuffled = values[:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert interval(values) == interval(shuffled)
    assert median_interval(values) == median_interval(shuffled)
    assert iqm(values) == iqm(shuffled)


@given(several, st.sampled_from([0.25, 2.0, 1024.0]), st.sampled_from([-8.0, 0.0, 64.0]))
@settings(max_examples=25, deadline=None)
def test_scale_and_shift_do_not_matter(values: list[float], scale: float, shift: float) -> None:
    plain, moved = interval(values), interval([scale * v + shift for v in values])
    assert plain is not None and moved is not None
    assert moved.low == pytest.approx(scale * plain.low + shift, rel=1e-9, abs=1e-9)
    assert moved.high == pytest.approx(scale * plain.high + shift, rel=1e-9, abs=1e-9)


@given(several)
@settings(max_examples=25, deadline=None)
def test_the_interval_holds_its_statistic_and_stays_in_the_data(values: list[float]) -> None:
    found = interval(values)
    assert found is not None
    slack = 1e-9 * max(map(abs, values))
    assert min(values) - slack <= found.low <= iqm(values) + slack
    assert iqm(values) - slack <= found.high <= max(values) + slack


# --- Time to a target --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "target", "goal", "expected"),
    [
        ([4.0, 2.0, 1.0], 3.0, "min", 5.0),
        ([4.0, 2.0, 1.0], 1.5, "min", 15.0),
        ([4.0, 2.0, 1.0], 1.0, "min", 20.0),
        ([4.0, 2.0, 1.0], 0.5, "min", math.inf),
        ([4.0, 2.0, 1.0], 4.0, "min", 0.0),
        ([0.1, 0.9, 0.5], 0.5, "max", 5.0),
        ([math.nan, 2.0, 1.0], 3.0, "min", 10.0),
        ([4.0, math.nan, 1.0], 2.0, "min", 20.0),
        ([4.0, math.inf, 1.0], 2.0, "min", 20.0),
        ([math.nan, math.nan, math.nan], 1.0, "min", math.inf),
    ],
)
def test_first_hit(values: list[float], target: float, goal: str, expected: float) -> None:
    assert first_hit([0.0, 10.0, 20.0], values, target, goal) == pytest.approx(expected)  # type: ignore[arg-type]


@given(st.floats(0.5, 100), st.floats(0.05, 5), st.floats(0.05, 0.95))
def test_first_hit_on_a_straight_line_is_exact(cost: float, drop: float, share: float) -> None:
    target = 10 - drop * share
    assert first_hit([0, cost], [10, 10 - drop], target) == pytest.approx(cost * share, rel=1e-6)


def test_expected_running_time_by_hand() -> None:
    # Two hits at 10 and 20, one run of 60 in vain: 90 for two hits; the mean of the hits is 15.
    assert expected_running_time([10, 20, 60], [1, 1, 0]) == 45
    assert expected_running_time([10, 20], [1, 1]) == 15
    assert expected_running_time([10, 20], [0, 0]) == math.inf
    table = expected_running_time([[1.0, 2.0], [1.0, 2.0]], [[1, 0], [0, 0]])
    assert table.tolist() == [3.0, math.inf]


@given(st.floats(0.1, 0.9), st.floats(1, 5))
@settings(max_examples=10, deadline=None)
def test_expected_running_time_is_that_of_restarting(chance: float, cost: float) -> None:
    """A run that costs ``c`` and works with chance ``p`` takes ``c / p`` until it works."""
    hits = np.random.default_rng(3).random(40_000) < chance
    found = expected_running_time(np.full(hits.shape, cost), hits)
    assert found == pytest.approx(cost / chance, rel=0.08)


# --- Curves ------------------------------------------------------------------------------------


def _points(found: Band) -> list[tuple[float, float, float, float]]:
    return list(
        zip(*(a.tolist() for a in (found.x, found.mid, found.low, found.high)), strict=True)
    )


def test_band_interpolates_and_cuts_at_the_shortest() -> None:
    found = band([Curve((0, 2), (4, 0)), Curve((0, 1, 4), (4, 4, 1)), Curve((0, 2, 3), (4, 3, 3))])
    assert _points(found) == [(0, 4, 4, 4), (1, 3.5, 2, 4), (2, 3, 0, 3)]


def test_band_of_five_shows_quartiles() -> None:
    found = band([Curve((0.0, 1.0), (1.0, float(i))) for i in range(5)])
    assert _points(found)[-1] == (1.0, 2.0, 1.0, 3.0)


def test_a_lost_run_does_not_improve_the_middle() -> None:
    kept = [Curve((0, 1, 2), (9, 5, 1)), Curve((0, 1, 2), (9, 6, 2))]
    found = band([*kept, Curve((0, 1), (9, 7), lost=True)])
    assert _points(found) == [(0, 9, 9, 9), (1, 6, 5, 7), (2, 2, 1, math.inf)]
    assert band([*kept, Curve((0, 1), (9, 7), lost=True)], "max").mid.tolist() == [9, 6, 1]


def test_the_line_ends_where_most_runs_are_lost() -> None:
    lost = [Curve((0, 1), (9, 7), lost=True), Curve((0, 1), (9, 8), lost=True)]
    assert band([Curve((0, 1, 2), (9, 5, 1)), *lost]).x.tolist() == [0, 1]
    assert band([*lost, Curve((), (), lost=True)]).x.tolist() == [0, 1]


def test_band_of_nothing() -> None:
    assert band([]).x.size == 0
    assert band([Curve((), ()), Curve((), ())]).x.size == 0
    assert band([Curve((0, 1), (1, 1)), Curve((5, 6), (1, 1))]).x.size == 0


def test_band_thins_long_curves_and_keeps_both_ends() -> None:
    found = band([Curve(tuple(range(5000)), tuple(range(5000)))] * 2, points=50)
    assert len(found.x) == 50
    assert (found.x[0], found.x[-1]) == (0, 4999)


# --- Best of k ---------------------------------------------------------------------------------


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=7))
@settings(deadline=None)
def test_best_of_k_is_the_average_over_all_subsets(values: list[float]) -> None:
    found = best_of_k(values)
    for k in range(1, len(values) + 1):
        bests = np.sort([min(subset) for subset in itertools.combinations(values, k)])
        assert found.mean[k - 1] == pytest.approx(bests.mean(), abs=1e-9)
        assert found.low[k - 1] == bests[math.ceil(0.25 * len(bests)) - 1]
        assert found.high[k - 1] == bests[math.ceil(0.75 * len(bests)) - 1]


def test_best_of_k_of_one_to_n() -> None:
    """The expected smallest of ``k`` out of ``1 .. n`` is ``(n + 1) / (k + 1)``."""
    n = 300
    found = best_of_k(np.arange(1.0, n + 1))
    assert found.k.tolist() == list(range(1, n + 1))
    np.testing.assert_allclose(found.mean, (n + 1) / (found.k + 1), rtol=1e-9)


def test_best_of_k_with_diverged_trials() -> None:
    found = best_of_k([1.0, math.inf, math.inf, 3.0])
    assert found.mean[:2].tolist() == [math.inf, math.inf]
    assert found.mean[2:].tolist() == pytest.approx([1.5, 1.0])
    assert found.low.tolist() == [1.0, 1.0, 1.0, 1.0]
    assert found.high.tolist() == [math.inf, 3.0, 1.0, 1.0]


def test_resamples_are_enough_for_the_tails() -> None:
    assert RESAMPLES * stats.norm.cdf(math.sqrt(6 / 5) * stats.t.ppf(0.025, 5)) > 20

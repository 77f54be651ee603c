from __future__ import annotations

import math

import numpy as np
import pytest
from example_results import lost
from judged_results import method, results, run, tuned
from numpy.random import default_rng
from simulated import LAWS, comparisons

from anyorder.compare.stats.differences import error_of_look
from anyorder.compare.stats.estimators import iqm
from anyorder.compare.stats.verdicts import (
    Pair,
    compare_costs,
    compare_pairs,
    lead,
    resolution,
)
from anyorder.compare.store.schema import MethodRecord, Results

# --- Pairs -------------------------------------------------------------------------------------


def test_ten_clear_differences_are_a_verdict() -> None:
    losses = [0.1 + 0.01 * i for i in range(10)]
    pair, *_ = compare_pairs(
        results(method("a", list(losses)), method("b", [x + 0.05 + 0.001 * x for x in losses]))
    )
    assert (pair.a, pair.b, pair.units, pair.verdict) == ("a", "b", 10, "better")
    assert pair.p == pair.adjusted == 2**-9
    assert pair.difference == pytest.approx(0.05 + 0.001 * iqm(losses))
    assert pair.interval is not None
    assert 0 < pair.interval.low < pair.difference < pair.interval.high


def test_the_other_way_round_it_is_worse() -> None:
    a, b = method("a", [2.0] * 8), method("b", [1.0] * 8)
    assert compare_pairs(results(a, b))[0].verdict == "worse"
    assert compare_pairs(results(b, a))[0].verdict == "better"


def test_the_same_method_twice_is_not_separable() -> None:
    losses = [0.5, 0.25, 0.125, 1.0, 2.0, 4.0]
    (pair,) = compare_pairs(results(method("a", losses), method("again", losses)))
    assert (pair.verdict, pair.p, pair.difference) == ("not separable", 1.0, 0.0)


def test_three_seeds_are_never_a_verdict() -> None:
    (pair,) = compare_pairs(results(method("a", [0.0, 0.0, 0.0]), method("b", [9.0, 9.0, 9.0])))
    assert (pair.p, pair.verdict) == (0.25, "not separable")


def test_lost_runs_count_against_a_method() -> None:
    wild = method("wild", [0.01] * 8)
    wild.runs[:7] = map(lost, wild.runs[:7])
    (pair,) = compare_pairs(results(wild, method("tame", [0.1] * 8)))
    assert pair.verdict == "worse"
    assert math.isnan(pair.difference)
    assert pair.interval is None


def test_holm_is_applied_over_all_pairs() -> None:
    methods = [method(str(i), [float(i)] * 6) for i in range(1, 4)]
    pairs = compare_pairs(results(*methods))
    assert [pair.p for pair in pairs] == [2 / 64] * 3
    assert [pair.adjusted for pair in pairs] == [6 / 64] * 3
    assert {pair.verdict for pair in pairs} == {"not separable"}


def test_what_is_not_comparable_says_why() -> None:
    other_start = method("moved", [1.0, 1.0, 1.0])
    other_start.runs[1].start_hash = "elsewhere"
    pairs = compare_pairs(
        results(
            method("a", [1.0, 1.0, 1.0]),
            other_start,
            method("lonely", [1.0]),
            method("broken", [], failed="boom"),
        )
    )
    why = {(pair.a, pair.b): pair.why for pair in pairs}
    assert why["a", "moved"] == "not started at the same point"
    assert why["a", "lonely"] == "1 seed; at least two are needed"
    assert why["a", "broken"] == "broken has no result"
    assert why["moved", "lonely"] == "1 seed; at least two are needed"
    assert {pair.verdict for pair in pairs} == {"not comparable"}
    assert all(math.isnan(pair.adjusted) for pair in pairs)


def test_equal_up_to_rounding_is_not_separable() -> None:
    """The same optimizer in two implementations: every run differs by 2e-16, with one sign."""
    losses = default_rng(0).uniform(0.5, 2.0, size=10)
    other = losses * (1 + 2.3e-16)
    assert (other > losses).any()
    (pair,) = compare_pairs(results(method("a", list(losses)), method("b", list(other))))
    assert (pair.verdict, pair.p, pair.difference) == ("not separable", 1.0, 0.0)
    assert pair.more is None
    block = losses.reshape(5, 2)
    (pair,) = compare_pairs(results(tuned("a", block), tuned("b", block * (1 + 2.3e-16))))
    assert (pair.verdict, pair.p) == ("not separable", 1.0)


def test_a_look_at_extended_data_is_stricter() -> None:
    a, b = method("a", [1.0] * 7), method("b", [2.0 + 0.1 * i for i in range(7)])
    verdicts = [compare_pairs(results(a, b, looks=looks))[0].verdict for looks in (1, 2)]
    assert verdicts == ["better", "not separable"]
    assert error_of_look(2) < 2 / 2**7 < error_of_look(1)


# --- Methods: tunings are the units --------------------------------------------------------------


def test_with_several_tunings_their_means_are_relabelled() -> None:
    a = tuned("a", [[1.0, 1.2], [1.1, 1.3], [1.2, 1.4], [1.3, 1.5]])
    b = tuned("b", [[2.0, 2.2], [2.1, 2.3], [2.2, 2.4], [2.3, 2.5]])
    (pair,) = compare_pairs(results(a, b))
    assert (pair.unit, pair.units, pair.verdict) == ("tuning", 4, "better")
    assert pair.p == pytest.approx(2 / math.comb(8, 4))
    assert pair.difference == pytest.approx(1.0)  # the metric is minus the loss
    assert pair.interval is None
    six = [[1.0 + 0.1 * i] for i in range(6)]
    (pair,) = compare_pairs(results(tuned("a", six), tuned("b", [[2 * x for x in y] for y in six])))
    assert pair.interval is not None
    assert pair.interval.low < pair.difference < pair.interval.high


def test_many_seeds_of_one_tuning_each_are_no_many_tunings() -> None:
    """Both tunings of b were lucky: 20 seeds do not make more of two tunings."""
    a, b = np.full((2, 20), 2.0), np.full((2, 20), 1.0)
    noise = 0.01 * default_rng(1).normal(size=(2, 2, 20))
    (pair,) = compare_pairs(results(tuned("a", a + noise[0]), tuned("b", b + noise[1])))
    assert (pair.verdict, pair.p) == ("not separable", pytest.approx(2 / math.comb(4, 2)))
    assert pair.why == "too few tunings, 4 are needed"
    assert pair.more == 2


@pytest.mark.slow
@pytest.mark.parametrize("law", ["normal", "exponential", "Student, 2"])
def test_200_results_of_a_method_with_itself(law: str) -> None:
    values = comparisons(default_rng(4), LAWS[law], count=200, methods=3, tunings=6, seeds=3)
    separated = 0
    for one in values:
        pairs = compare_pairs(results(*(tuned(f"m{i}", each) for i, each in enumerate(one))))
        assert len(pairs) == 3
        separated += any(pair.verdict in ("better", "worse") for pair in pairs)
    assert separated <= 10


# --- How much more it takes ----------------------------------------------------------------------


def test_advice_names_the_number_of_further_units() -> None:
    rng = default_rng(2)
    near, far = rng.normal(1.0, 0.1, 8), rng.normal(1.07, 0.1, 8)
    (pair,) = compare_pairs(results(method("a", list(near)), method("b", list(far))))
    assert pair.verdict == "not separable"
    assert pair.more is not None
    assert pair.advice == f"needs about {pair.more} more seeds"
    assert Pair("a", "b", "tuning", 4, verdict="not separable", more=1).advice == (
        "needs about 1 more tuning"
    )
    assert Pair("a", "b", "seed", 4, verdict="not separable").advice == (
        "more than 1,000 seeds are needed"
    )
    assert Pair("a", "b", "seed", 4, verdict="better", more=3).advice == ""


# --- Cost to the target --------------------------------------------------------------------------


def _timed(name: str, metrics: list[float]) -> MethodRecord:
    """A method whose runs reach the target 0.5 after ``5 / metric`` seconds, or never."""
    method_ = method(name, [1.0] * len(metrics))
    method_.runs = [run(i, 1.0, metric=metric) for i, metric in enumerate(metrics)]
    return method_


def test_costs_have_their_own_words() -> None:
    fast = _timed("fast", [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7])
    slow = _timed("slow", [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85])
    (pair,) = compare_costs(results(fast, slow, target=0.5))
    assert (pair.verdict, pair.p) == ("faster", 2**-7)
    assert pair.difference == pytest.approx(0.5)  # half the cost in each run
    assert pair.interval is not None
    assert (pair.interval.low, pair.interval.high) == pytest.approx((0.5, 0.5))
    assert pair.turned().verdict == "slower"
    assert compare_costs(results()) == []


def test_a_miss_is_slower_than_any_hit() -> None:
    hits, misses = _timed("hits", [0.51] * 8), _timed("misses", [0.49] * 8)
    (pair,) = compare_costs(results(misses, hits, target=0.5))
    assert pair.verdict == "slower"
    assert math.isnan(pair.difference)
    (pair,) = compare_costs(results(misses, _timed("too", [0.4] * 8), target=0.5))
    assert (pair.verdict, pair.p) == ("not separable", 1.0)


# --- The twin ------------------------------------------------------------------------------------


def _twin(losses: list[float], of: str = "a") -> MethodRecord:
    twin = method(f"{of} (A/A)", losses, twin_of=of)
    for each in twin.runs:
        each.seed += 500_000
        each.start_hash = f"s{each.seed}"
    return twin


def test_the_twin_shows_the_resolution_and_costs_no_correction() -> None:
    a, b = method("a", [1.0 + 0.01 * i for i in range(8)]), method("b", [2.0] * 8)
    alone = compare_pairs(results(a, b))
    found = results(a, b, _twin([1.005 + 0.01 * i for i in range(8)]))
    assert compare_pairs(found) == alone
    pair = resolution(found)
    assert pair is not None
    assert (pair.a, pair.b, pair.units, pair.verdict) == ("a", "a (A/A)", 8, "not separable")
    assert pair.difference == pytest.approx(0.005)
    assert resolution(results(a, b)) is None


def test_a_twin_that_is_separated_is_not_hidden() -> None:
    found = results(method("a", [1.0 + 0.01 * i for i in range(8)]), _twin([2.0] * 8))
    pair = resolution(found)
    assert pair is not None
    assert pair.verdict == "better"


# --- The leader ----------------------------------------------------------------------------------


def _with_rows(noise: float, lead_: float = 0.0007, units: float = 1e-5) -> Results:
    """Two methods whose difference is ``lead_``, on test rows that change it by ``noise``."""
    rng = default_rng(3)
    rows = noise * rng.normal(size=200)
    a = tuned("a", 0.2 + units * rng.normal(size=(6, 3)))
    b = tuned("b", 0.2 + lead_ + units * rng.normal(size=(6, 3)))
    for each, sign in ((a, 0.5), (b, -0.5)):
        for one in each.runs:
            score = one.final.metric or 0.0
            one.test = {"score": score}
            one.resampled = [score + sign * float(row) for row in rows]
    return results(a, b)


def test_a_lead_within_the_noise_of_the_rows_is_not_apart() -> None:
    found = _with_rows(noise=0.0006)
    pairs = compare_pairs(found)
    assert pairs[0].verdict == "better"
    lead_ = lead(found, "a", pairs)
    assert (lead_.apart, lead_.rows, lead_.within_rows) == (False, True, ("b",))
    found = _with_rows(noise=0.0001)
    lead_ = lead(found, "a", compare_pairs(found))
    assert (lead_.apart, lead_.rows, lead_.within_rows) == (True, True, ())


def test_without_rows_the_lead_says_so() -> None:
    a, b, c = (tuned(name, [[x + 0.01 * i] for i in range(6)]) for name, x in
               (("a", 1.0), ("b", 2.0), ("c", 2.0)))  # fmt: skip
    found = results(a, b)
    lead_ = lead(found, "a", compare_pairs(found))
    assert (lead_.apart, lead_.rows) == (True, False)
    assert not lead(found, "b", compare_pairs(found)).apart
    found = results(a, b, c)
    assert not lead(found, "b", compare_pairs(found)).apart
    assert not lead(results(a), "a", []).apart


def test_rows_without_a_metric_are_left_out() -> None:
    found = _with_rows(noise=0.0006)
    for each in found.methods:
        for one in each.runs:
            one.resampled[::2] = [None] * 100
    assert not lead(found, "a", compare_pairs(found)).apart

from __future__ import annotations

import math
from dataclasses import replace

import example_results as example
import pytest
from example_results import lost
from hypothesis import given, settings
from hypothesis import strategies as st
from judged_results import method, results, run, tuned

from anyorder.compare.run.records import Final
from anyorder.compare.stats.estimators import StatisticsError
from anyorder.compare.stats.leaderboard import summarise
from anyorder.compare.stats.tuning import not_tuned_out, three_results
from anyorder.compare.stats.verdicts import compare_costs, compare_pairs, resolution


def test_rows_by_hand() -> None:
    (row,) = summarise(results(method("a", [3.0, 0.0, 12.0]), target=0.25))
    assert (row.name, row.low, row.high) == ("a", None, None)
    assert row.final_loss == pytest.approx(4.0)
    assert row.metric == pytest.approx(-4.0)
    assert (row.judged, row.tunings) == (row.metric, 1)
    assert (row.success, row.target_cost, row.unit) == (1.0, 5.0, "seconds")
    assert (row.calls["values"], row.calls["grads"]) == (0, 10)
    assert (row.seconds, row.oracle_share, row.runs, row.note) == (
        10.0, 0.75, 3, "3 seeds: no interval (at least 6 are needed)",
    )  # fmt: skip


def test_best_first_failed_last_with_the_reason() -> None:
    broken = method("broken", [], failed="ValueError: no <gradient>")
    wild = method("wild", [0.01, 0.01, 0.01])
    wild.runs[1:] = map(lost, wild.runs[1:])
    rows = summarise(results(broken, wild, method("fair", [0.3, 0.2]), method("good", [0.1, 0.1])))
    assert [row.name for row in rows] == ["good", "fair", "wild", "broken"]
    assert rows[0].low is None
    assert rows[0].note == "2 seeds: no interval (at least 6 are needed)"
    assert rows[2].final_loss == math.inf
    assert rows[2].note.startswith("2 of 3 runs diverged; ")
    assert not rows[2].failed
    assert rows[3].failed
    assert rows[3].note == "ValueError: no <gradient>"


def test_a_method_without_a_single_result_counts_as_failed() -> None:
    broken = method("broken", [1.0, 1.0, 1.0])
    broken.runs = [lost(each, "failed", error="RuntimeError: too hot") for each in broken.runs]
    (row,) = summarise(results(broken))
    assert row.failed
    assert row.note.startswith("3 of 3 runs failed: RuntimeError: too hot; ")
    assert math.isnan(row.metric)


def test_memory_is_that_of_the_run_and_the_largest_of_all_runs() -> None:
    runs = [
        run(0, 1.0, peak_bytes=110, base_bytes=100, state_bytes=4),
        run(1, 1.0, peak_bytes=90, base_bytes=60, state_bytes=0),
        run(2, 1.0, peak_bytes=0, base_bytes=0, state_bytes=0),
    ]
    (row,) = summarise(results(example.method("a", runs)))
    assert (row.run_bytes, row.state_bytes) == (30, 4)
    (row,) = summarise(results(example.method("a", runs[2:])))
    assert row.run_bytes is None


def test_a_finite_number_of_a_diverged_run_is_not_believed() -> None:
    runs = [run(0, 1.0), run(1, 1.0), replace(run(2, -5.0), status="diverged")]
    (row,) = summarise(results(example.method("a", runs)))
    assert row.final_loss == math.inf
    assert row.metric == -math.inf  # the goal is a large metric


@pytest.mark.parametrize("name", list(example.hostile()))
def test_odd_results_are_no_error(name: str) -> None:
    odd = example.hostile()[name]
    assert len(summarise(odd)) == len(odd.methods)
    compare_pairs(odd)


def test_methods_are_ranked_by_the_metric_and_then_by_the_loss() -> None:
    sharp, blunt, sure = method("sharp", [0.2]), method("blunt", [0.1]), method("sure", [0.1])
    sharp.runs[0].final = Final(0.4, 0.99)
    blunt.runs[0].final = Final(0.3, 0.9)
    sure.runs[0].final = Final(0.2, 0.9)
    rows = summarise(results(blunt, sure, sharp))
    assert [row.name for row in rows] == ["sharp", "sure", "blunt"]
    assert [row.name for row in summarise(results(blunt, sure, sharp, goal="min"))] == [
        "sure",
        "blunt",
        "sharp",
    ]


def test_without_a_metric_the_loss_decides() -> None:
    methods = method("a", [0.2] * 8), method("b", [0.1] * 8)
    for one in (one for each in methods for one in each.runs):
        one.final.metric = None
    assert [row.name for row in summarise(results(*methods))] == ["b", "a"]
    assert compare_pairs(results(*methods))[0].verdict == "worse"


def test_an_unknown_axis_is_refused() -> None:
    with pytest.raises(StatisticsError, match="seconds"):
        summarise(results(), axis="furlongs")  # type: ignore[arg-type]


@given(
    st.permutations(range(6)),
    st.lists(st.floats(0.01, 10), min_size=6, max_size=6),
    st.sampled_from([0.5, 4.0]),
)
@settings(max_examples=20, deadline=None)
def test_order_and_unit_of_the_losses_do_not_matter(
    order: list[int], losses: list[float], scale: float
) -> None:
    numbers = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    plain, other = method("a", list(losses)), method("b", numbers)
    shuffled = replace(plain, runs=[plain.runs[i] for i in order])
    scaled = method("a", [scale * loss for loss in losses])
    wide = method("b", [scale * loss for loss in numbers])
    assert summarise(results(plain, other)) == summarise(results(shuffled, other))
    assert compare_pairs(results(plain, other)) == compare_pairs(results(shuffled, other))
    (pair,), (large,) = (compare_pairs(results(*two)) for two in ((plain, other), (scaled, wide)))
    assert large.verdict == pair.verdict
    assert large.difference == pytest.approx(scale * pair.difference)


def test_six_units_have_an_interval() -> None:
    (row,) = summarise(results(method("a", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])))
    assert row.note == ""
    assert row.low is not None and row.high is not None
    assert 1.0 <= row.low < row.final_loss < row.high <= 6.0
    assert (row.judged_low, row.judged_high) == pytest.approx((-row.high, -row.low))


def test_tunings_are_averaged_before_methods() -> None:
    losses = [[1.0, 1.0, 4.0], [2.0, 2.0, 2.0]]
    (row,) = summarise(results(tuned("a", losses)))
    assert row.final_loss == pytest.approx((1 / 6 + 4 / 6 + 4 / 6 + 2.0) / 2)
    assert (row.tunings, row.runs) == (2, 6)
    assert row.note == "2 tunings: no interval (at least 6 are needed)"


def test_test_data_decide_and_validation_data_are_shown() -> None:
    a, b = method("a", [0.1, 0.1]), method("b", [0.2, 0.2])
    for each, score in ((a, 0.5), (b, 0.7)):
        for one in each.runs:
            one.test = {"score": score, "loss": 3.0}
    first, second = summarise(results(a, b))
    assert (first.name, first.judged, first.metric) == ("b", 0.7, -0.2)
    assert (second.name, second.judged, second.metric) == ("a", 0.5, -0.1)


def test_a_blown_up_loss_is_no_loss_of_the_run_where_a_metric_decides() -> None:
    wild = method("wild", [0.1, 0.1])
    for one in wild.runs:
        one.final = Final(None, 0.85)
    tame = method("tame", [0.2, 0.2])
    for one in tame.runs:
        one.final = Final(0.2, 0.82)
    assert [row.name for row in summarise(results(wild, tame))] == ["wild", "tame"]


def test_timeouts_and_missing_numbers_are_named() -> None:
    slow = method("slow", [1.0] * 6)
    slow.runs[0] = lost(slow.runs[0], "failed", error="more than 10 minutes")
    slow.runs[0].stop_reason = "timeout"
    slow.runs[1].final = Final(1.0, None)
    (row,) = summarise(results(slow))
    assert row.note == "1 of 6 runs timed out; 1 of 6 runs have no finite validation score"


def test_runs_above_the_memory_limit_are_named() -> None:
    large = method("large", [1.0] * 6)
    large.runs[0] = lost(large.runs[0], "failed", error="9 GiB exceeds 8 GiB")
    large.runs[0].stop_reason = "memory"
    (row,) = summarise(results(large))
    assert row.note == "1 of 6 runs exceeded the memory limit: 9 GiB exceeds 8 GiB"


def test_the_twin_is_last_and_no_rival() -> None:
    twin = method("a (A/A)", [0.01, 0.01], twin_of="a")
    rows = summarise(results(method("a", [1.0, 1.0]), twin, method("b", [2.0, 2.0])))
    assert [(row.name, row.twin) for row in rows] == [
        ("a", False), ("b", False), ("a (A/A)", True),
    ]  # fmt: skip
    assert [row.pareto for row in rows] == [True, False, False]


def test_no_method_dominates_what_is_best_in_one_respect() -> None:
    good, small, fast, poor = (method(name, [loss] * 2) for name, loss in
        (("good", 0.1), ("small", 0.2), ("fast", 0.3), ("poor", 0.3)))  # fmt: skip
    for one in small.runs:
        one.peak_bytes = 1
    for one in fast.runs:
        one.curve[-1].seconds = 1.0
    rows = {row.name: row.pareto for row in summarise(results(good, small, fast, poor))}
    assert rows == {"good": True, "small": True, "fast": True, "poor": False}
    same = {row.name: row.pareto for row in summarise(results(good, method("again", [0.1] * 2)))}
    assert same == {"good": True, "again": True}


@pytest.mark.parametrize("name", list(example.hostile()))
def test_odd_results_have_no_odd_statistics(name: str) -> None:
    odd = example.hostile()[name]
    assert len(summarise(odd)) == len(odd.methods)
    count = len(odd.methods) * (len(odd.methods) - 1) // 2
    assert len(compare_pairs(odd)) == count
    assert len(compare_costs(odd)) in (0, count)
    assert resolution(odd) is None
    assert len(three_results(odd)) == sum(bool(each.runs) for each in odd.methods)
    not_tuned_out(odd)

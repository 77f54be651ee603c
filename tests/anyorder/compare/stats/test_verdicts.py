from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import example_results as example
import pytest
from example_results import costs, lost, point
from hypothesis import given, settings
from hypothesis import strategies as st

from anyorder.compare.run.records import Final, RunRecord
from anyorder.compare.stats.estimators import StatisticsError
from anyorder.compare.stats.verdicts import compare_pairs, summarise, time_to_target
from anyorder.compare.store.schema import MethodRecord, Results


def run(seed: int, loss: float, metric: float | None = 0.5, **more: Any) -> RunRecord:
    """A run in 10 seconds whose metric goes straight from 0; in the end it is minus the loss."""
    curve = [
        point(seconds=0.0, steps=0, forwards=0.0, metric=0.0, val_loss=1.0),
        point(
            seconds=10.0, steps=5, forwards=30.0, calls=costs(grads=10), metric=metric,
            val_loss=loss, oracle_seconds=6.0, optimizer_seconds=2.0,
        ),
    ]  # fmt: skip
    return example.run(seed, [], **{"curve": curve, "final": Final(loss, -loss), **more})


def method(name: str, losses: Sequence[float], **more: Any) -> MethodRecord:
    return example.method(name, [run(i, loss) for i, loss in enumerate(losses)], **more)


def results(*methods: MethodRecord, **problem: Any) -> Results:
    return example.results(*methods, **{"budget": "10s", "target": None, **problem})


# --- Leaderboard -------------------------------------------------------------------------------


def test_rows_by_hand() -> None:
    (row,) = summarise(results(method("a", [3.0, 0.0, 12.0]), target=0.25))
    assert (row.name, row.low, row.high) == ("a", 0.0, 12.0)
    assert row.final_loss == pytest.approx(4.0)
    assert row.metric == pytest.approx(-4.0)
    assert (row.metric_low, row.metric_high) == (-12.0, 0.0)
    assert (row.success, row.target_cost, row.unit) == (1.0, 5.0, "seconds")
    assert (row.calls["values"], row.calls["grads"]) == (0, 10)
    assert (row.seconds, row.oracle_share, row.runs, row.note) == (10.0, 0.75, 3, "")


def test_best_first_failed_last_with_the_reason() -> None:
    broken = method("broken", [], failed="ValueError: no <gradient>")
    wild = method("wild", [0.01, 0.01, 0.01])
    wild.runs[1:] = map(lost, wild.runs[1:])
    rows = summarise(results(broken, wild, method("fair", [0.3, 0.2]), method("good", [0.1, 0.1])))
    assert [row.name for row in rows] == ["good", "fair", "wild", "broken"]
    assert rows[0].low is None
    assert rows[0].note == "2 seeds: no interval (at least three are needed)"
    assert rows[2].final_loss == math.inf
    assert rows[2].note == "2 of 3 runs diverged"
    assert not rows[2].failed
    assert rows[3].failed
    assert rows[3].note == "ValueError: no <gradient>"


def test_a_method_without_a_single_result_counts_as_failed() -> None:
    broken = method("broken", [1.0, 1.0, 1.0])
    broken.runs = [lost(each, "failed", error="RuntimeError: too hot") for each in broken.runs]
    (row,) = summarise(results(broken))
    assert row.failed
    assert row.note == "3 of 3 runs failed: RuntimeError: too hot"
    assert math.isnan(row.metric)


def test_memory_is_the_largest_of_all_runs() -> None:
    runs = [run(0, 1.0, peak_bytes=10, state_bytes=4), run(1, 1.0, peak_bytes=30, state_bytes=0)]
    (row,) = summarise(results(example.method("a", runs)))
    assert (row.peak_bytes, row.state_bytes) == (30, 4)


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
    st.permutations(range(5)),
    st.lists(st.floats(0.01, 10), min_size=5, max_size=5),
    st.sampled_from([0.5, 4.0]),
)
@settings(max_examples=20, deadline=None)
def test_order_and_unit_of_the_losses_do_not_matter(
    order: list[int], losses: list[float], scale: float
) -> None:
    plain = method("a", list(losses))
    other = method("b", [1.0, 2.0, 3.0, 4.0, 5.0])
    shuffled = replace(plain, runs=[plain.runs[i] for i in order])
    scaled = method("a", [scale * loss for loss in losses])
    wide = method("b", [scale * loss for loss in (1.0, 2.0, 3.0, 4.0, 5.0)])
    assert summarise(results(plain, other)) == summarise(results(shuffled, other))
    assert compare_pairs(results(plain, other)) == compare_pairs(results(shuffled, other))
    (pair,), (large,) = (compare_pairs(results(*two)) for two in ((plain, other), (scaled, wide)))
    assert large.verdict == pair.verdict
    assert large.difference == pytest.approx(scale * pair.difference)


# --- Targets -----------------------------------------------------------------------------------


def test_misses_cost_their_whole_run() -> None:
    runs = [run(0, 1.0, metric=0.5), run(1, 1.0, metric=0.25), run(2, 1.0, metric=1.0)]
    reach = time_to_target(runs, 0.5, "max", "seconds")
    assert reach.hit == (True, False, True)
    assert reach.spent == (10.0, 10.0, 5.0)
    assert reach.success == 2 / 3
    assert reach.expected == 12.5
    found = reach.interval()
    assert found is not None
    assert found.low == 5.0
    assert found.high == math.inf  # three resampled runs may all have missed
    assert time_to_target(runs, 0.5, "max", "steps").expected == 6.25
    assert time_to_target(runs[:2], 0.5, "max", "seconds").interval() is None
    assert time_to_target([], 0.5, "max", "seconds").expected == math.inf


def test_a_lost_run_missed_the_target_whatever_its_curve_shows() -> None:
    runs = [run(0, 1.0, metric=1.0), lost(run(1, 1.0, metric=1.0))]
    reach = time_to_target(runs, 0.5, "max", "seconds")
    assert (reach.hit, reach.spent) == ((True, False), (5.0, 10.0))
    assert reach.expected == 15.0


# --- Pairs -------------------------------------------------------------------------------------


def test_ten_clear_differences_are_a_verdict() -> None:
    losses = [0.1 + 0.01 * i for i in range(10)]
    pair, *_ = compare_pairs(
        results(method("a", list(losses)), method("b", [x + 0.05 + 0.001 * x for x in losses]))
    )
    assert (pair.a, pair.b, pair.seeds, pair.verdict) == ("a", "b", 10, "better")
    assert pair.p == pair.adjusted == 2**-9
    assert pair.difference == pytest.approx(0.05 + 0.001 * sum(losses) / 10)
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
    wild = method("wild", [0.01] * 7)
    wild.runs[:6] = map(lost, wild.runs[:6])
    (pair,) = compare_pairs(results(wild, method("tame", [0.1] * 7)))
    assert pair.verdict == "worse"
    assert math.isnan(pair.difference)
    assert pair.interval is None


def test_holm_is_applied_over_all_pairs() -> None:
    methods = [method(str(i), [float(i)] * 6) for i in range(3)]
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
    assert why["a", "lonely"] == "1 shared seed; at least two are needed"
    assert why["a", "broken"] == "broken has no result"
    assert why["moved", "lonely"] == "1 shared seed; at least two are needed"
    assert {pair.verdict for pair in pairs} == {"not comparable"}
    assert all(math.isnan(pair.adjusted) for pair in pairs)

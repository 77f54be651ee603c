from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyorder.compare.stats.estimators import StatisticsError
from anyorder.compare.stats.verdicts import (
    compare_pairs,
    summarise,
    time_to_target,
)


def run(seed: int, loss: float | None, metric: float | None = 0.5, **more: Any) -> dict[str, Any]:
    """A run in 10 seconds whose metric goes straight from 0; in the end it is minus the loss."""
    curve = [
        {"seconds": 0.0, "steps": 0, "forwards": 0.0, "metric": 0.0, "val_loss": 1.0},
        {
            "seconds": 10.0,
            "steps": 5,
            "forwards": 30.0,
            "calls": {"values": 0, "grads": 10, "skipped": 0},
            "metric": metric,
            "val_loss": loss,
            "oracle_seconds": 6.0,
            "optimizer_seconds": 2.0,
        },
    ]
    final = {"loss": loss, "metric": None if loss is None else -loss}
    return {
        "seed": seed,
        "start_hash": f"s{seed}",
        "status": "done",
        "curve": curve,
        "final": final,
    } | more


def method(name: str, losses: list[float | None], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "runs": [run(i, loss) for i, loss in enumerate(losses)],
        "failed": None,
    } | more


def results(*methods: dict[str, Any], **problem: Any) -> dict[str, Any]:
    return {
        "plan": {"budget": "10s"},
        "problem": {"goal": "max"} | problem,
        "methods": list(methods),
    }


LOST = {"status": "diverged", "final": {"loss": None, "metric": None}}


# --- Leaderboard -------------------------------------------------------------------------------


def test_rows_by_hand() -> None:
    (row,) = summarise(results(method("a", [3.0, 0.0, 12.0]), target=0.25))
    assert (row.name, row.low, row.high) == ("a", 0.0, 12.0)
    assert row.final_loss == pytest.approx(4.0)
    assert row.metric == pytest.approx(-4.0)
    assert (row.metric_low, row.metric_high) == (-12.0, 0.0)
    assert (row.success, row.target_cost, row.unit) == (1.0, 5.0, "seconds")
    assert row.calls == {"values": 0, "grads": 10, "skipped": 0}
    assert (row.seconds, row.oracle_share, row.runs, row.note) == (10.0, 0.75, 3, "")
    assert row.peak_bytes is row.state_bytes is None


def test_best_first_failed_last_with_the_reason() -> None:
    broken = method("broken", [], failed="ValueError: no <gradient>")
    wild = method("wild", [0.01, 0.01, 0.01])
    for each in wild["runs"][1:]:
        each |= LOST
    rows = summarise(results(broken, wild, method("fair", [0.3, 0.2]), method("good", [0.1, 0.1])))
    assert [row.name for row in rows] == ["good", "fair", "wild", "broken"]
    assert rows[0].low is None
    assert rows[0].note == "2 seeds: no interval (three are the least)"
    assert rows[2].final_loss == math.inf
    assert rows[2].note == "2 of 3 runs diverged"
    assert not rows[2].failed
    assert rows[3].failed
    assert rows[3].note == "ValueError: no <gradient>"


def test_a_method_without_a_single_result_counts_as_failed() -> None:
    broken = method("broken", [None, None, None])
    for each in broken["runs"]:
        each |= LOST | {"status": "failed", "error": "RuntimeError: too hot"}
    (row,) = summarise(results(broken))
    assert row.failed
    assert row.note == "3 of 3 runs failed: RuntimeError: too hot"
    assert math.isnan(row.metric)


def test_memory_is_the_largest_of_all_runs() -> None:
    runs = [run(0, 1.0, peak_bytes=10, state_bytes=4), run(1, 1.0, peak_bytes=30, state_bytes=None)]
    (row,) = summarise(results({"name": "a", "runs": runs}))
    assert (row.peak_bytes, row.state_bytes) == (30, 4)


def test_a_finite_number_of_a_diverged_run_is_not_believed() -> None:
    runs = [run(0, 1.0), run(1, 1.0), run(2, -5.0, status="diverged")]
    (row,) = summarise(results({"name": "a", "runs": runs}))
    assert row.final_loss == math.inf
    assert row.metric == -math.inf  # the goal is a large metric


@pytest.mark.parametrize(
    "hostile",
    [
        {},
        {"methods": []},
        {"methods": [{}]},
        {"methods": [{"name": "a", "runs": [{}]}], "problem": None, "plan": None},
        {"methods": [{"name": "a", "runs": [{"curve": [], "final": None}]}]},
        {"methods": [{"name": "a", "runs": [run(0, math.nan, math.nan)]}], "rates": {"nominal": 3}},
    ],
)
def test_missing_fields_are_unknown_and_no_error(hostile: dict[str, Any]) -> None:
    for row in summarise(hostile):
        assert row.failed
    compare_pairs(hostile)


def test_methods_are_ranked_by_the_metric_and_then_by_the_loss() -> None:
    sharp, blunt, sure = method("sharp", [0.2]), method("blunt", [0.1]), method("sure", [0.1])
    sharp["runs"][0]["final"] = {"loss": 0.4, "metric": 0.99}
    blunt["runs"][0]["final"] = {"loss": 0.3, "metric": 0.9}
    sure["runs"][0]["final"] = {"loss": 0.2, "metric": 0.9}
    rows = summarise(results(blunt, sure, sharp))
    assert [row.name for row in rows] == ["sharp", "sure", "blunt"]
    assert [row.name for row in summarise(results(blunt, sure, sharp, goal="min"))] == [
        "sure",
        "blunt",
        "sharp",
    ]


def test_without_a_metric_the_loss_decides() -> None:
    methods = method("a", [0.2] * 8), method("b", [0.1] * 8)
    for run_ in (run for each in methods for run in each["runs"]):
        run_["final"]["metric"] = None
    assert [row.name for row in summarise(results(*methods))] == ["b", "a"]
    assert compare_pairs(results(*methods))[0].verdict == "worse"


def test_an_unknown_axis_is_refused() -> None:
    with pytest.raises(StatisticsError, match="seconds"):
        summarise(results(), axis="furlongs")


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
    shuffled = {**plain, "runs": [plain["runs"][i] for i in order]}
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
    runs = [run(0, 1.0, metric=1.0), run(1, 1.0, metric=1.0) | LOST]
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
    losses: list[float | None] = [0.5, 0.25, 0.125, 1.0, 2.0, 4.0]
    (pair,) = compare_pairs(results(method("a", losses), method("again", losses)))
    assert (pair.verdict, pair.p, pair.difference) == ("not separable", 1.0, 0.0)


def test_three_seeds_are_never_a_verdict() -> None:
    (pair,) = compare_pairs(results(method("a", [0.0, 0.0, 0.0]), method("b", [9.0, 9.0, 9.0])))
    assert (pair.p, pair.verdict) == (0.25, "not separable")


def test_lost_runs_count_against_a_method() -> None:
    wild = method("wild", [0.01] * 7)
    for each in wild["runs"][:6]:
        each |= LOST
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
    other_start["runs"][1]["start_hash"] = "elsewhere"
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
    assert why["a", "lonely"] == "1 shared seed; two are the least"
    assert why["a", "broken"] == "broken has no result"
    assert why["moved", "lonely"] == "1 shared seed; two are the least"
    assert {pair.verdict for pair in pairs} == {"not comparable"}
    assert all(math.isnan(pair.adjusted) for pair in pairs)

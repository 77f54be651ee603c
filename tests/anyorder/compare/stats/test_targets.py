from __future__ import annotations

import math

import example_results as example
from example_results import lost, point
from judged_results import method, results, run

from anyorder.compare.run.records import RunRecord
from anyorder.compare.stats.targets import Target, ladder, main_target, time_to_target
from anyorder.compare.store.schema import MethodRecord


def test_misses_cost_their_whole_run() -> None:
    runs = [run(0, 1.0, metric=0.5), run(1, 1.0, metric=0.25), run(2, 1.0, metric=1.0)]
    reach = time_to_target(runs, 0.5, "max", "seconds")
    assert reach.hit == (True, False, True)
    assert reach.spent == (10.0, 10.0, 5.0)
    assert reach.success == 2 / 3
    assert reach.expected == 12.5
    assert reach.times.tolist() == [10.0, math.inf, 5.0]
    assert reach.median == 10.0
    assert reach.interval() is None
    assert time_to_target(runs, 0.5, "max", "steps").expected == 6.25
    assert time_to_target([], 0.5, "max", "seconds").expected == math.inf


def test_a_lost_run_missed_the_target_whatever_its_curve_shows() -> None:
    runs = [run(0, 1.0, metric=1.0), lost(run(1, 1.0, metric=1.0))]
    reach = time_to_target(runs, 0.5, "max", "seconds")
    assert (reach.hit, reach.spent) == ((True, False), (5.0, 10.0))
    assert reach.expected == 15.0


def test_the_median_of_six_runs_has_an_interval_that_holds_misses() -> None:
    runs = [run(i, 1.0, metric=0.5 + 0.1 * i) for i in range(5)] + [run(5, 1.0, metric=0.1)]
    reach = time_to_target(runs, 0.5, "max", "seconds")
    found = reach.interval()
    assert found is not None
    assert (found.low, found.high) == (min(reach.spent), math.inf)
    assert reach.median == (reach.spent[1] + reach.spent[2]) / 2


def test_the_median_over_tunings_is_of_their_medians() -> None:
    metrics = ((0.5, 0.6, 0.1), (1.0, 0.8, 0.7))
    runs = [
        run(10_000 * t + s, 1.0, metric=metric, tuning=t)
        for t, row in enumerate(metrics)
        for s, metric in enumerate(row)
    ]
    reach = time_to_target(runs, 0.5, "max", "seconds")
    assert reach.median == (10.0 + 5 / 0.8) / 2


# --- The ladder ----------------------------------------------------------------------------------


def _path(seed: int, metrics: list[float | None]) -> RunRecord:
    curve = [
        point(fraction=i / 4, seconds=float(i), metric=metric) for i, metric in enumerate(metrics)
    ]
    return example.run(seed, [], curve=curve, final=run(seed, 1.0).final)


def _baseline() -> MethodRecord:
    paths = [[0.0, 0.1, 0.4, 0.6, 0.7], [0.0, 0.2, 0.5, 0.5, 0.9], [0.0, 0.3, 0.2, 0.8, 0.8]]
    return example.method("adamw", [_path(i, list(path)) for i, path in enumerate(paths)])


def test_the_ladder_is_made_of_medians_of_the_best_so_far() -> None:
    rungs = ladder(results(_baseline()))
    assert [rung.value for rung in rungs] == [0.2, 0.4, 0.6, 0.8]
    assert rungs[0].source == "median of adamw at 25% of the budget"
    assert main_target(results(_baseline())) == rungs[2]
    assert main_target(results(_baseline(), target=0.3)) == Target(0.3, "set by the problem")


def test_other_methods_do_not_move_the_ladder() -> None:
    alone = ladder(results(_baseline()))
    assert ladder(results(_baseline(), method("b", [9.0, 9.0]))) == alone


def test_rungs_without_progress_or_without_a_median_are_skipped() -> None:
    flat = example.method("adamw", [_path(i, [None, None, 0.5, 0.5, 0.6]) for i in range(3)])
    assert [rung.value for rung in ladder(results(flat))] == [0.5, 0.6]
    wild = example.method("adamw", [lost(_path(i, [0.0, 0.1, 0.2, 0.3, 0.4])) for i in range(3)])
    assert ladder(results(wild)) == []
    assert main_target(results(wild)) is None
    assert ladder(results()) == []


def test_a_ladder_that_goes_down() -> None:
    falling = example.method("adamw", [_path(i, [4.0, 3.0, 2.0, 2.5, 1.0]) for i in range(3)])
    assert [rung.value for rung in ladder(results(falling, goal="min"))] == [3.0, 2.0, 1.0]

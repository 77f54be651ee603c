from __future__ import annotations

from typing import Any

import example_results as example
from example_results import lost, point

from anyorder.compare.report.charts import Chart
from anyorder.compare.report.rows import final_values, target_times
from anyorder.compare.run.records import Final, RunRecord
from anyorder.compare.store.schema import Results

Runs = tuple[str, list[RunRecord]]


def _run(seed: int, end: float, cost: float = 10.0) -> RunRecord:
    """A run whose accuracy climbs straight from 0 to its end."""
    curve = [point(seconds=0.0, metric=0.0), point(seconds=cost, metric=end)]
    return example.run(seed, [], curve=curve, final=Final(1 - end, end))


def _results(*methods: Runs, **problem: Any) -> Results:
    return example.results(
        *(example.method(name, runs) for name, runs in methods),
        **{"budget": "10s", "metric": "accuracy", "target": 0.5, **problem},
    )


def _chart(chart: Chart | None) -> Chart:
    assert chart is not None
    return chart


POOR = ("poor", [_run(i, end) for i, end in enumerate((0.2, 0.3, 0.25))])
FINE = ("fine", [_run(i, end) for i, end in enumerate((0.8, 1.0, 0.4))])
LOST = ("lost", [_run(0, 0.9), lost(_run(1, 0.9)), _run(2, 0.7)])


def test_final_values_by_hand() -> None:
    chart = _chart(final_values(_results(POOR, FINE)))
    assert chart["y"]["rows"] == ["fine", "poor"]
    best = chart["views"]["fixed"]["series"][0]
    assert best["m"] == 1
    assert [dot["x"] for dot in best["dots"][:3]] == [0.8, 1.0, 0.4]
    assert best["dots"][3]["kind"] == "centre"
    assert best["dots"][3]["text"] == "interquartile mean 0.7667"
    assert best["bars"] == []  # three seeds
    assert chart["gutter"] is None
    assert chart["table"]["rows"][0] == ["fine", "0.7667", "0.8, 1, 0.4"]


def test_lost_runs_stand_apart() -> None:
    chart = _chart(final_values(_results(POOR, LOST)))
    assert chart["gutter"] == "no result"
    row = next(s for s in chart["views"]["fixed"]["series"] if s["m"] == 1)
    assert [dot["x"] for dot in row["dots"]] == [0.9, None, 0.7]
    assert row["dots"][1]["text"] == "seed 1: diverged"
    assert row["bars"] == []


def test_nothing_finished_is_no_chart() -> None:
    assert final_values(_results(("lost", [lost(_run(0, 0.9))]))) is None
    assert final_values(_results()) is None


def test_misses_have_no_time() -> None:
    chart = _chart(target_times(_results(POOR, FINE)))
    fine, poor = chart["views"]["seconds"]["series"]
    assert [dot["x"] for dot in fine["dots"]] == [6.25, 5.0, None, 6.25]
    assert fine["dots"][2]["text"] == "seed 2: missed after 10 s"
    assert fine["dots"][3]["text"] == "median 6.25 s"
    assert fine["bars"] == []  # three seeds
    assert [dot["x"] for dot in poor["dots"]] == [None, None, None]
    assert poor["bars"] == []
    assert chart["table"]["rows"] == [
        ["fine", "2 of 3 runs", "6.25", "10.62", "6.25, 5, missed after 10"],
        [
            "poor",
            "0 of 3 runs",
            "never",
            "never",
            "missed after 10, missed after 10, missed after 10",
        ],
    ]
    assert chart["title"] == "Cost to the target: accuracy ≥ 0.5"


def test_without_a_target_there_is_no_time_to_it() -> None:
    lost = ("lost", [example.lost(_run(i, 0.9)) for i in range(3)])
    assert target_times(_results(lost, target=None)) is None
    assert target_times(_results(target=1.0)) is None


def test_without_a_target_of_the_problem_the_baseline_sets_it() -> None:
    chart = _chart(target_times(_results(POOR, FINE, target=None)))
    assert chart["notes"][0].startswith("Target: median of poor at ")


def test_six_runs_have_bars() -> None:
    six = ("six", [_run(i, 0.5 + 0.1 * i) for i in range(5)] + [_run(5, 0.1)])
    (end,) = _chart(final_values(_results(six)))["views"]["fixed"]["series"]
    ((low, high, row),) = end["bars"]
    assert 0.1 <= low < high <= 0.9
    assert row == 0
    (time,) = _chart(target_times(_results(six)))["views"]["seconds"]["series"]
    assert time["bars"] == [[5 / 0.9, None, 0]]  # up to the run that missed


def test_with_several_tunings_the_mark_is_over_tunings() -> None:
    runs = [_run(10_000 * t + s, 0.1 * (1 + t) + 0.01 * s) for t in range(2) for s in range(3)]
    for i, run in enumerate(runs):
        run.tuning = i // 3
    (series,) = _chart(final_values(_results(("two", runs))))["views"]["fixed"]["series"]
    assert series["dots"][-1]["x"] == (0.11 + 0.21) / 2

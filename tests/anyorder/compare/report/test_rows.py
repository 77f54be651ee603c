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
    assert best["dots"][3]["text"] == "interquartile mean 0.7667 [0.4, 1]"
    assert best["bars"] == [[0.4, 1.0, 0]]
    assert chart["gutter"] is None
    assert chart["table"]["rows"][0] == ["fine", "0.7667 [0.4, 1]", "0.8, 1, 0.4"]


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
    assert [dot["x"] for dot in fine["dots"]] == [6.25, 5.0, None, 21.25 / 2]
    assert fine["dots"][2]["text"] == "seed 2: missed after 10 s"
    assert fine["dots"][3]["text"] == "expected 10.62 [5, ∞] s"
    assert fine["bars"] == [[5.0, None, 0]]
    assert [dot["x"] for dot in poor["dots"]] == [None, None, None]
    assert poor["bars"] == []
    assert chart["table"]["rows"] == [
        ["fine", "2 of 3 runs", "10.62 [5, ∞]", "6.25, 5, missed after 10"],
        ["poor", "0 of 3 runs", "never", "missed after 10, missed after 10, missed after 10"],
    ]
    assert chart["title"] == "Cost to the target: accuracy ≥ 0.5"


def test_without_a_target_there_is_no_time_to_it() -> None:
    assert target_times(_results(POOR, target=None)) is None
    assert target_times(_results(target=1.0)) is None

from __future__ import annotations

import json

import example_results as example
import pytest

from anyorder.compare.report.charts import Chart
from anyorder.compare.report.curves import figures, loss_curves, metric_curves
from anyorder.compare.store.schema import Results

RUNS: dict[str, list[list[float | None]]] = {
    "a": [[1.0, 0.5, 0.25], [1.0, 0.6, 0.35], [1.0, 0.7, 0.45]],
    "b": [[1.0, 0.9, 0.8]] * 3,
}


def _chart(chart: Chart | None) -> Chart:
    assert chart is not None
    return chart


def test_medians_bands_and_single_runs() -> None:
    chart = _chart(loss_curves(example.made_up(RUNS)))
    view = chart["views"]["forwards"]
    first = view["series"][0]
    assert first["line"] == [[0, 30, 60], [1.0, 0.6, 0.35]]
    assert first["band"] == [[0, 30, 60], [1.0, 0.5, 0.25], [1.0, 0.7, 0.45]]
    assert [run["y"] for run in first["thin"]] == RUNS["a"]
    assert chart["views"]["seconds"]["series"][0]["line"][0] == [0, 0.5, 1.0]
    assert chart["views"]["steps"]["series"][0]["line"][0] == [0, 10, 20]
    assert chart["views"]["calls"]["series"][0]["line"][0] == [0, 10, 20]
    assert chart["y"] == {"label": "validation loss", "log": False, "range": None, "goal": "min"}


def test_the_table_and_the_words_say_what_is_drawn() -> None:
    chart = _chart(loss_curves(example.made_up(RUNS)))
    assert chart["table"]["head"] == [
        "method",
        "at 15 forwards",
        "at 30 forwards",
        "at 45 forwards",
        "at 60 forwards",
    ]
    assert chart["table"]["rows"][0] == [
        "a",
        "0.8 [0.75, 0.85]",
        "0.6 [0.5, 0.7]",
        "0.475 [0.375, 0.575]",
        "0.35 [0.25, 0.45]",
    ]
    assert chart["alt"] == (
        "Validation loss against forward-pass equivalents, one line per method. "
        "Medians where the lines end, best first: a 0.35; b 0.8."
    )
    assert chart["notes"] == [
        "Line: median over seeds. Band: all runs, from best to worst. Thin lines: single runs."
    ]


def test_losses_over_many_decades_are_drawn_on_logarithms() -> None:
    runs = {"a": [[1.0, 0.1, 0.001]] * 5}
    chart = _chart(loss_curves(example.made_up(runs)))
    assert chart["y"]["log"]
    assert "middle half" in chart["notes"][0]


def _nine_and(bad: list[float | None]) -> Results:
    """Nine methods close to each other, and one run that is far worse."""
    runs: dict[str, list[list[float | None]]] = {
        f"m{i}": [[2.3, 0.6, 0.3, 0.2 + 0.01 * i]] * 3 for i in range(9)
    }
    return example.made_up({**runs, "bad": [[2.3, 0.6, 0.3, 0.25], [2.3, 0.6, 0.3, 0.25], bad]})


@pytest.mark.parametrize("bad", [[2.3, 40.0, 500.0, 900.0], [2.3, 2.2, 2.2, 2.1]])
def test_one_bad_run_does_not_compress_nine_methods(bad: list[float | None]) -> None:
    chart = _chart(loss_curves(_nine_and(bad)))
    low, high = chart["y"]["range"]
    assert low == pytest.approx(0.2)
    # The ends of the methods fill at least a seventh of the axis, of which they were a 30th.
    assert 0.28 < high < 0.2 + 7 * 0.08
    assert chart["notes"][1].startswith(f"Values above {high:.4g} are outside the chart")


def test_a_run_on_its_way_to_infinity_does_not_set_the_scale() -> None:
    results = _nine_and([2.3, 1e9, 1e30])
    assert _chart(loss_curves(results))["y"]["log"] is False
    low, high = _chart(metric_curves(results))["y"]["range"]
    assert (low, high) == (pytest.approx(0.7), pytest.approx(0.8))
    assert "below 0.7" in _chart(metric_curves(results))["notes"][1]


def test_a_chart_without_outliers_shows_everything() -> None:
    chart = _chart(loss_curves(example.made_up(RUNS)))
    assert chart["y"]["range"] is None
    assert not any("outside" in note for note in chart["notes"])


def test_a_near_target_is_inside_the_chart_and_a_far_one_does_not_stretch_it() -> None:
    results = _nine_and([2.3, 40.0, 500.0, 900.0])
    results.problem.target = 0.85
    assert _chart(metric_curves(results))["y"]["range"][1] == pytest.approx(0.85)
    results.problem.target = 0.99
    assert _chart(metric_curves(results))["y"]["range"][1] == pytest.approx(0.8)


def test_distance_to_a_known_optimum() -> None:
    chart = _chart(loss_curves(example.made_up({"a": [[3.0, 2.0, 1.001]] * 2}, optimum=1.0)))
    assert chart["title"] == "Distance of the validation loss to the optimum"
    assert chart["views"]["steps"]["series"][0]["thin"][0]["y"] == [2.0, 1.0, 1.001 - 1.0]
    assert chart["y"]["log"]
    below = _chart(loss_curves(example.hostile()["optimum"]))
    assert "lower edge" in below["notes"][1]


def test_the_target_is_a_line_in_the_metric() -> None:
    chart = _chart(metric_curves(example.made_up(RUNS)))
    assert chart["lines"] == [{"at": 0.8, "label": "target 0.8"}]
    assert "lines" not in _chart(metric_curves(example.made_up(RUNS, target=None)))


def test_a_lost_run_counts_as_worst_after_its_end() -> None:
    results = example.made_up(RUNS)
    results.methods[0].runs[0] = example.run(0, [1.0, 0.5], status="diverged")
    series = _chart(loss_curves(results))["views"]["steps"]["series"][0]
    assert series["line"][1] == [1.0, 0.6, 0.45]
    assert series["band"][2] == [1.0, 0.7, None]
    assert series["thin"][0]["lost"]


def test_which_charts_there_are() -> None:
    def ids(results: Results) -> list[str]:
        return [chart["id"] for chart in figures(results)]

    assert ids(example.made_up(RUNS)) == ["final", "loss", "metric", "target"]
    assert ids(example.made_up(RUNS, target=None)) == ["final", "loss", "metric", "target"]
    flat = {name: [[0.5, 0.5]] * 2 for name in "ab"}
    empty = {name: [[]] * 2 for name in "ab"}
    assert "target" in ids(example.made_up(flat, target=None))
    assert ids(example.made_up(empty, target=None)) == []
    assert ids(example.made_up(RUNS, metric="loss", goal="min")) == ["final", "loss", "target"]
    assert ids(example.results()) == []


@pytest.mark.parametrize("name", list(example.hostile()))
def test_hostile_results_make_sound_charts(name: str) -> None:
    for chart in figures(example.hostile()[name]):
        json.dumps(chart, allow_nan=False)
        assert chart["alt"].endswith(".")
        assert all(len(row) == len(chart["table"]["head"]) for row in chart["table"]["rows"])
        for view in chart["views"].values():
            for series in view["series"]:
                for part in ("band", "line"):
                    assert len({len(side) for side in series.get(part, [])}) <= 1

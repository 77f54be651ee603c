from __future__ import annotations

import math
from dataclasses import replace

import pytest
from example_results import method, results, searched, trial

from anyorder.compare.report.charts import Chart
from anyorder.compare.report.tuning import (
    best_of_trials,
    chosen_of,
    edge,
    learning_rates,
    lr_range,
    trial_values,
)
from anyorder.compare.store.schema import MethodRecord, Results


def _method(name: str, trials: list[tuple[float, float | None]], chosen: int = 0) -> MethodRecord:
    tuning = [
        trial(i, value, "diverged" if value is None else "done", lr=lr)
        for i, (lr, value) in enumerate(trials)
    ]
    return method(name, [], chosen=chosen, space=[searched()], trials=tuning)


def _results(*methods: MethodRecord, goal: str = "min") -> Results:
    return results(*methods, metric="error", goal=goal)


def _chart(chart: Chart | None) -> Chart:
    assert chart is not None
    return chart


FOUR = _method("four", [(1e-3, 4.0), (1e-2, 1.0), (0.1, None), (0.5, 3.0)], chosen=1)


def test_values_turned_so_that_small_is_good() -> None:
    assert trial_values(FOUR, "min").tolist() == [4.0, 1.0, math.inf, 3.0]
    assert trial_values(FOUR, "max").tolist() == [-4.0, -1.0, math.inf, -3.0]
    assert trial_values(method("a", []), "min").tolist() == []


def test_best_of_k_by_hand() -> None:
    chart = _chart(best_of_trials(_results(FOUR)))
    (series,) = chart["views"]["fixed"]["series"]
    # Pairs of 1, 3, 4, inf: their bests are 1, 1, 1, 3, 3, 4.
    assert series["line"] == [[2, 3, 4], pytest.approx([13 / 6, 1.5, 1.0])]
    assert series["band"] == [[1, 2, 3, 4], [1.0, 1.0, 1.0, 1.0], [4.0, 3.0, 1.0, 1.0]]
    assert chart["table"]["rows"] == [["four", "4", "1", "2: 2.167; 4: 1"]]


def test_best_of_k_of_what_is_to_be_large() -> None:
    two = _method("two", [(0.1, 0.5), (0.2, 0.9)])
    chart = _chart(best_of_trials(_results(two, goal="max")))
    (series,) = chart["views"]["fixed"]["series"]
    assert series["line"] == [[1, 2], pytest.approx([0.7, 0.9])]
    assert series["band"] == [[1, 2], [0.5, 0.9], [0.9, 0.9]]


def test_learning_rates_by_hand() -> None:
    chart = _chart(learning_rates(_results(FOUR)))
    (series,) = chart["views"]["fixed"]["series"]
    assert [(dot["x"], dot["y"], dot["kind"]) for dot in series["dots"]] == [
        (1e-3, 4.0, "seed"),
        (1e-2, 1.0, "centre"),
        (0.1, None, "seed"),
        (0.5, 3.0, "seed"),
    ]
    assert series["line"] == [[1e-3, 1e-2, 0.5], [4.0, 1.0, 3.0]]
    assert series["edges"] == [1e-4, 1.0]
    assert chart["gutter"] == "no result"
    assert chart["table"]["rows"][0][:3] == ["four", "0.0001 to 1", "inside"]


@pytest.mark.parametrize(
    ("lr", "side"), [(1e-4, "lower"), (1.1e-4, "lower"), (2e-4, ""), (0.5, ""), (1.0, "upper")]
)
def test_the_edge_of_the_space_is_flagged(lr: float, side: str) -> None:
    tuned = _method("m", [(lr, 1.0), (0.01, 2.0)])
    assert (side in edge(tuned)) if side else (edge(tuned) == "")
    notes = _chart(learning_rates(_results(tuned)))["notes"]
    assert any(side in note for note in notes[1:]) if side else len(notes) == 1


def test_without_tuning_there_is_nothing_to_draw() -> None:
    one, lost = _method("one", [(0.1, 1.0)]), _method("lost", [(0.1, None)] * 3)
    for each in (method("a", []), one, lost):
        assert best_of_trials(_results(each)) is None
    assert learning_rates(_results(method("a", []))) is None
    assert learning_rates(_results(_method("lost", [(0.1, None)] * 3))) is None


def test_without_tuning_nothing_was_chosen() -> None:
    assert chosen_of(method("a", [])) == []
    assert chosen_of(FOUR) == [FOUR.tunings[0].trials[1]]


def test_without_a_searched_rate_there_is_no_edge() -> None:
    assert lr_range(method("a", [])) is None
    for space in ([searched("momentum")], [searched(low=0.0)]):
        assert edge(replace(FOUR, tunings=[replace(FOUR.tunings[0], space=space)])) == ""
    zero = _method("zero", [(0.0, 1.0), (0.1, 2.0)])
    assert edge(zero).startswith("lr 0 is at the lower end")

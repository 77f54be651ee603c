from __future__ import annotations

import itertools
import math
from dataclasses import replace

import example_results as example
import numpy as np
import pytest
from example_results import searched, trial
from judged_results import method, results, run
from numpy.random import default_rng

from anyorder.compare.stats.tuning import (
    edges,
    expected_best,
    not_tuned_out,
    search_cost,
    share_of_range,
    three_results,
    trial_values,
)
from anyorder.compare.stats.tuning import (
    searched as space_of,
)
from anyorder.compare.store.schema import MethodRecord


def _tuned(values: list[float | None], losses: list[float], lr: float = 0.01) -> MethodRecord:
    """A method whose trials come to these scores; its runs come to minus these losses."""
    trials = [trial(i, value, lr=lr * (1 + i)) for i, value in enumerate(values)]
    known = [(value, i) for i, value in enumerate(values) if value is not None]
    chosen = max(known)[1] if known else 0
    return method("a", losses, space=[searched()], trials=trials, chosen=chosen)


QUIET = [-0.8, -0.81, -0.79]


def test_trials_of_all_tunings_count() -> None:
    one = _tuned([0.1, 0.3], QUIET)
    both = replace(one, tunings=[one.tunings[0], replace(one.tunings[0], index=1)])
    assert trial_values(both, "max").tolist() == [-0.1, -0.3, -0.1, -0.3]
    assert search_cost(both, "forwards") == search_cost(one, "forwards")
    assert math.isnan(search_cost(one, "calls"))


def test_a_best_that_still_rises_is_not_tuned_out() -> None:
    (found,) = not_tuned_out(results(_tuned([0.1, 0.2, 0.4, 0.8], QUIET)))
    pairs = [max(pair) for pair in itertools.combinations((0.1, 0.2, 0.4, 0.8), 2)]
    assert found.rise == pytest.approx(0.8 - np.mean(pairs))
    assert found.spread == pytest.approx(0.01)
    assert found.reason == "more trials still help"


def test_a_flat_best_is_tuned_out() -> None:
    assert not_tuned_out(results(_tuned([0.1, 0.8, 0.8, 0.8], QUIET))) == []
    rising = [0.1, 0.2, 0.4, 0.8]
    assert not_tuned_out(results(_tuned(rising, [-0.3, -1.5, -0.9]))) == []  # seeds vary by more
    assert not_tuned_out(results(_tuned(rising, [-0.8]))) == []  # nothing is known of the seeds
    assert not_tuned_out(results(_tuned([None, None], QUIET), method("b", QUIET))) == []


def test_luck_alone_is_no_rise() -> None:
    """Trials that differ by the noise of seeds only: the best of more is luck, not tuning."""
    rng = default_rng(0)
    flagged = sum(
        bool(not_tuned_out(results(_tuned(list(rng.normal(0.8, 0.01, 8)),
                                          list(-rng.normal(0.8, 0.01, 5))))))
        for _ in range(100)
    )  # fmt: skip
    assert flagged <= 10


@pytest.mark.parametrize(
    ("lr", "floor", "ceiling", "side"),
    [
        (1e-4, None, None, "lower"), (1.1e-4, None, None, "lower"), (2e-4, None, None, ""),
        (0.5, None, None, ""), (1.0, None, None, "upper"), (1e-4, 1e-4, None, ""),
        (1.0, None, 1.0, ""), (1.0, None, 2.0, "upper"),
    ],
)  # fmt: skip
def test_an_end_that_is_no_hard_limit_is_an_edge(
    lr: float, floor: float | None, ceiling: float | None, side: str
) -> None:
    one = _tuned([0.8], QUIET, lr=lr)
    space = [replace(searched(), floor=floor, ceiling=ceiling)]
    one.tunings[0].space = space
    assert [each[2] for each in edges(one)] == ([side] if side else [])
    found = not_tuned_out(results(one))
    assert [each.reason for each in found] == (["best lr at an end of the range"] if side else [])


def test_the_space_is_the_widest_of_all_tunings() -> None:
    one = _tuned([0.8], QUIET)
    choice = replace(searched("kind"), kind="choice", low=None, high=None, choices=("x", "y"))
    wide = [replace(searched(low=1e-5), extended=True), choice]
    other = replace(one.tunings[0], index=1, space=wide)
    one.tunings[0].space = [searched(high=10.0), choice]
    both = replace(one, tunings=[one.tunings[0], other])
    assert space_of(both) == [replace(searched(low=1e-5, high=10.0), extended=True), choice]


def test_places_in_a_range() -> None:
    assert share_of_range(searched(), 0.01) == pytest.approx(0.5)
    assert share_of_range(searched(), 0.0) == 0.0
    assert share_of_range(replace(searched(), kind="linear", low=0.0), 0.25) == 0.25
    assert share_of_range(replace(searched(), kind="choice"), 0.25) is None
    assert share_of_range(searched(low=0.0), 0.25) is None
    assert share_of_range(searched(low=1.0), 1.0) is None


def test_three_results_by_hand() -> None:
    one = _tuned([0.5, 0.6, 0.7], [-0.9, -0.9, -0.9])
    one.default_runs = [run(i, -0.4) for i in range(3)]
    (found,) = three_results(results(one, target=0.25))
    assert found.default == pytest.approx(0.4)
    assert found.best_of == pytest.approx({1: 0.6, 2: (0.6 + 0.7 + 0.7) / 3, 3: 0.7})
    assert found.tuned == pytest.approx(0.9)
    assert found.search == pytest.approx(sum(each.cost.seconds for each in one.tunings[0].trials))
    assert found.target == 5.0  # the metric rises to 0.5 in 10 seconds
    assert found.charged == found.search + 5.0


def test_without_default_runs_tuning_or_target_the_three_results_have_gaps() -> None:
    (found,) = three_results(results(example.method("a", [run(0, 1.0)]), goal="min"))
    assert math.isnan(found.default)
    assert found.best_of == {}
    assert found.search == 0.0


def test_expected_best_of_one_tuning_uses_the_trials_of_all() -> None:
    one = _tuned([0.1, 0.3], QUIET)
    other = replace(one.tunings[0], index=1, trials=[trial(0, 0.2), trial(1, 0.6)])
    both = replace(one, tunings=[one.tunings[0], other])
    assert expected_best(both, "max") == pytest.approx(
        {1: 0.3, 2: np.mean([max(p) for p in itertools.combinations((0.1, 0.3, 0.2, 0.6), 2)])}
    )

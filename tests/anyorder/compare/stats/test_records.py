"""What counts as a result, and what it cost."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from example_results import costs, lost, method, point, results, run

from anyorder.compare.run.records import Final
from anyorder.compare.stats.records import (
    Criterion,
    cost,
    criteria,
    judged_by,
    main_axis,
    number,
    succeeded,
    unit_of,
    units,
)


def test_costs_of_a_point() -> None:
    calls = costs(values=8, grads=2, products=1, rankings=3, ranked=30, skipped=9)
    one = point(seconds=2.5, steps=4, forwards=7.0, calls=calls)
    assert cost(one, "seconds") == 2.5
    assert cost(one, "steps") == 4
    assert cost(one, "calls") == 14
    assert cost(one, "forwards") == 7


@pytest.mark.parametrize(
    ("budget", "axis"),
    [
        ("60s", "seconds"),
        ("2min", "seconds"),
        ("100steps", "steps"),
        ("500grads", "forwards"),
        ("5s,9values", "seconds"),
    ],
)
def test_the_main_axis_is_the_one_of_the_budget(budget: str, axis: str) -> None:
    assert main_axis(results(budget=budget)) == axis


def test_no_number_is_nan() -> None:
    assert math.isnan(number(None))
    assert number(2.0) == 2.0


def test_a_run_succeeded_if_it_finished_with_a_metric_or_a_loss() -> None:
    done = run(0, [1.0])
    assert succeeded(done)
    assert succeeded(replace(done, final=Final(None, 0.5)))
    assert not succeeded(replace(done, final=Final(None, None)))
    assert not succeeded(replace(done, status="diverged"))


def test_a_run_without_result_has_the_worst_value() -> None:
    done = run(0, [1.0], final=Final(1.0, 0.5), test={"score": 0.25, "other": None})
    loss = Criterion("loss", "score", "min")
    metric, test = Criterion("metric", "score", "max"), Criterion("test", "score", "max")
    assert (loss.of(done), metric.of(done), test.of(done)) == (1.0, 0.5, 0.25)
    assert (loss.of(lost(done)), metric.of(lost(done)), test.of(lost(done))) == (
        math.inf, -math.inf, -math.inf,
    )  # fmt: skip
    assert metric.of(replace(done, final=Final(1.0, None))) == -math.inf
    assert metric.of(replace(done, final=Final(1.0, math.nan))) == -math.inf
    assert test.of(replace(done, test=None)) == -math.inf
    assert Criterion("test", "other", "min").of(done) == math.inf


def test_judged_by_test_data_then_the_metric_then_the_loss() -> None:
    one = run(0, [1.0], final=Final(1.0, 0.5), test={"score": 0.25})
    assert judged_by(results(method("a", [one]))) == Criterion("test", "score", "max")
    assert [each.name for each in criteria(results(method("a", [one])))] == [
        "test score", "validation score", "validation loss",
    ]  # fmt: skip
    one.test = {"loss": 0.25}
    assert judged_by(results(method("a", [one]))) == Criterion("metric", "score", "max")
    one.final = Final(1.0, None)
    assert judged_by(results(method("a", [one]))) == Criterion("loss", "score", "min")
    assert judged_by(results()).key == "loss"


def test_a_metric_that_is_the_loss_is_shown_once() -> None:
    one = run(0, [1.0], final=Final(1.0, 1.0))
    found = criteria(results(method("a", [one]), metric="loss", goal="min"))
    assert [each.name for each in found] == ["validation loss"]


def test_units_are_seeds_or_tunings() -> None:
    losses = Criterion("loss", "score", "min")
    seeds = [run(i, [float(i)]) for i in range(3)]
    assert units(seeds, losses.of).tolist() == [0.0, 1.0, 2.0]
    assert unit_of(results(method("a", seeds))) == "seed"
    nested = [run(10_000 * t + i, [t + float(i)], tuning=t) for t in (1, 0) for i in range(3)]
    assert units(nested, losses.of).tolist() == [1.0, 2.0]
    assert unit_of(results(method("a", nested))) == "tuning"
    nested[0] = lost(nested[0])
    assert units(nested, losses.of).tolist() == [1.0, math.inf]

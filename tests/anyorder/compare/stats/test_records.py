"""What counts as a result, and what it cost."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from example_results import costs, lost, method, point, results, run

from anyorder.compare.run.records import Final
from anyorder.compare.stats.records import cost, final, judged_by, main_axis, number, succeeded


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


def test_only_a_finished_run_with_a_loss_succeeded() -> None:
    done = run(0, [1.0])
    assert succeeded(done)
    assert not succeeded(replace(done, final=Final(None, 0.5)))
    assert not succeeded(replace(done, status="diverged"))


def test_a_run_without_result_has_the_worst_final_value() -> None:
    done = run(0, [1.0], final=Final(1.0, 0.5))
    assert (final(done, "loss"), final(done, "metric", "max")) == (1.0, 0.5)
    assert final(lost(done), "loss") == math.inf
    assert final(lost(done), "metric", "max") == -math.inf
    assert final(replace(done, final=Final(1.0, None)), "metric", "max") == -math.inf


def test_judged_by_the_metric_if_there_is_one() -> None:
    one = run(0, [1.0], final=Final(1.0, 0.5))
    assert judged_by(results(method("a", [one]))) == ("metric", "max")
    one.final = Final(1.0, None)
    assert judged_by(results(method("a", [one]))) == ("loss", "min")
    assert judged_by(results()) == ("loss", "min")

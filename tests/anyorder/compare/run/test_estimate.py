"""How long runs take: the formula, what is measured, and what finished runs teach."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from example_results import plan

from anyorder.compare.plan.entrants import resolve
from anyorder.compare.plan.items import Item, Task
from anyorder.compare.plan.limits import Limits
from anyorder.compare.plan.settings import Settings
from anyorder.compare.progress import Silent
from anyorder.compare.run import estimate
from anyorder.compare.run.estimate import Forecast, Pace, pace, run_seconds, timeout
from anyorder.compare.session import Request, compare
from anyorder.oracle.ledger import NOMINAL_RATES
from anyorder.problems import load

PACE = Pace(step_seconds=0.5, step_forwards=3.0, setup_seconds=0.25, evaluation_seconds=2.0)


def task(item: Item, **settings: Any) -> Task:
    one = plan(item.method, **settings)
    return Task(one.settings, one.methods[0], item, {}, dict(NOMINAL_RATES))


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        (Limits(steps=20), 10.0),
        (Limits(forwards=30.0), 5.0),
        (Limits(forwards=31.0), 5.5),  # the step that passes the limit is taken or undone
        (Limits(seconds=7.0), 7.0),
        (Limits(seconds=7.0, steps=4), 2.0),
        (Limits(seconds=7.0, forwards=3000.0), 7.0),
    ],
)
def test_charged_seconds_follow_the_limit_that_comes_first(limits: Limits, seconds: float) -> None:
    assert PACE.charged(limits) == seconds


def test_a_method_that_asks_nothing_is_bound_by_the_other_limits() -> None:
    idle = Pace(0.5, 0.0, 0.0, 0.0)
    assert idle.charged(Limits(forwards=9.0, seconds=4.0)) == 4.0
    assert idle.charged(Limits(forwards=9.0)) == math.inf


def test_a_run_is_its_budget_its_start_and_its_evaluations() -> None:
    trial, report = Item.trial("sgd", 0, 0), Item.report("sgd", 0, 0)
    settings: dict[str, Any] = {"budget": "20steps", "evaluations": 8}
    # Evaluations: at the start and then 8, or 2 of them for trials; the test data for the others.
    assert run_seconds(PACE, task(trial, **settings)) == 0.25 + 10.0 + 2.0 * 3
    assert run_seconds(PACE, task(report, **settings)) == 0.25 + 10.0 + 2.0 * 10


def test_a_pace_is_measured_over_warm_steps(
    problem_file: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One second per loss and ten per evaluation, on the clock of the problem."""
    problem: Any = load(
        problem_file("""
        time = 0.0
        def loss(self, model, batch):
            type(self).time += 1.0
            return model(batch).square().mean()
        def evaluate(self, model):
            type(self).time += 10.0
            return {"loss": 1.0}
        """)
    )
    monkeypatch.setattr("time.perf_counter", lambda: type(problem).time)
    monkeypatch.setattr(estimate, "PATIENCE", 8.0)
    for method, asked, price in (("sgd", 1.0, 3.0), ("mezo", 2.0, 2.0)):
        wanted = task(Item.trial(method, 0, 0), budget="900grads")
        assert pace(problem, resolve(method), wanted) == Pace(asked, price, 0.0, 10.0)
    short = task(Item.trial("mezo", 0, 0), budget="5forwards")
    assert pace(problem, resolve("mezo"), short).step_forwards == 2.0


def test_time_outs() -> None:
    usual = Settings("p")
    assert timeout(usual, 1.0) == 600.0
    assert timeout(usual, 100.0) == 2000.0
    assert timeout(Settings("p", timeout="90s"), 100.0) == 90.0
    assert timeout(Settings("p", timeout="2m"), 0.0) == 120.0


def runs(method: str, count: int) -> list[Item]:
    return [Item.report(method, 0, number) for number in range(count)]


def test_a_forecast_is_corrected_by_finished_runs_of_the_same_method() -> None:
    fast, slow, new = runs("a", 3), runs("b", 3), runs("c", 2)
    forecast = Forecast({**dict.fromkeys(fast, 1.0), **dict.fromkeys(slow + new, 10.0)}, jobs=2)
    assert forecast.left() == (3 + 30 + 20) / 2
    forecast.finished(fast[0], 2.0)  # twice as long; nothing else is known of the others
    assert forecast.left() == 2 * (2 + 30 + 20) / 2
    forecast.finished(slow[0], 5.0)
    overall = 7.0 / 11.0
    assert forecast.left() == pytest.approx((2 * 2.0 + 20 * 0.5 + 20 * overall) / 2)
    forecast.finished(slow[1], None)  # was not needed
    assert forecast.left() == pytest.approx((2 * 2.0 + 10 * 0.5 + 20 * overall) / 2)


def test_a_forecast_knows_of_runs_that_others_finished() -> None:
    forecast = Forecast(dict.fromkeys(runs("a", 4), 3.0))
    assert forecast.left(2) == 6.0
    assert forecast.left(9) == 12.0
    assert forecast.left(0) == 0.0
    assert Forecast({}).left(3) == 0.0


def test_a_forecast_without_estimates_says_nothing() -> None:
    forecast = Forecast(dict.fromkeys(runs("a", 2), 0.0))
    forecast.finished(runs("a", 1)[0], 3.0)
    assert forecast.left() == 0.0


@pytest.mark.slow
def test_the_estimate_before_the_start_is_near_the_measured_times(tmp_path: Path) -> None:
    """Recorded numbers of a real comparison: methods that differ in the cost of a step."""
    told: dict[str, float] = {}

    class Told(Silent):
        def begin(self, total: int, expected: Mapping[Item, float], jobs: int) -> None:
            told.update({item.key: seconds for item, seconds in expected.items()})

    settings = Settings("digits", budget="300grads", tune=2, seeds=1, threads=1, defaults=False)
    methods = ("adamw", "mezo", "torch.optim:LBFGS")
    found = compare(Request(settings, methods, tmp_path), Told(), lambda found, out: None)
    for method in found.methods:
        spent = sum(run.curve[-1].seconds + run.evaluation_seconds for run in method.runs)
        guess = sum(told[f"report/{method.name}/0/{run.seed}"] for run in method.runs)
        assert spent / 3 < guess < 3 * spent, method.name

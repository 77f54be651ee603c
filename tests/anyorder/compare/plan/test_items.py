"""Runs: their order, their names, and what each is told."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest

from anyorder.compare.plan.items import Item, Task, best_trial, items
from anyorder.compare.plan.limits import Limits
from anyorder.compare.plan.plan import Entry, Plan
from anyorder.compare.plan.settings import Settings
from anyorder.oracle.ledger import NOMINAL_RATES


def changed(plan: Plan, **settings: Any) -> Plan:
    return replace(plan, settings=replace(plan.settings, **settings))


def test_runs_take_turns(small_plan: Plan) -> None:
    keys = [item.key for item in items(changed(small_plan, defaults=True))]
    assert keys == [
        "tune/a/0", "tune/a/1", "tune/a/2",
        "report/a/0", "report/b/0", "default/a/0", "default/b/0",
        "report/a/1", "report/b/1", "default/a/1", "default/b/1",
    ]  # fmt: skip


def test_methods_alternate_in_tuning() -> None:
    settings = Settings("p", budget="1s", tune=2, seeds=1)
    plan = Plan(settings, [Entry(name, "x", "", {}, True) for name in "ab"], "", {})
    keys = [item.key for item in items(plan)]
    assert keys == ["tune/a/0", "tune/b/0", "tune/a/1", "tune/b/1", "report/a/0", "report/b/0"]


@pytest.mark.parametrize("tune", [0, 1])
def test_without_a_choice_there_is_no_tuning(small_plan: Plan, tune: int) -> None:
    assert {item.kind for item in items(changed(small_plan, tune=tune))} == {"report"}


def test_tuning_seeds_are_apart_from_reported_ones(small_plan: Plan) -> None:
    seeds = {
        kind: {i.seed for i in items(small_plan) if i.kind == kind} for kind in ("tune", "report")
    }
    assert seeds == {"tune": {TUNING_SEED}, "report": {0, 1}}


def test_a_key_names_its_run() -> None:
    for item in (
        Item("tune", "torch.optim:SGD", 3, TUNING_SEED),
        Item("report", "folder/mine.py:Mine", -1, 2),
        Item("default", "a", -1, 0),
    ):
        assert Item.from_key(item.key) == item
    assert str(Item("tune", "sgd", 3, TUNING_SEED)) == "tune 3  sgd"


def test_the_best_trial_by_value_then_loss_then_order() -> None:
    inf = float("inf")
    assert best_trial([(0.5, 1.0), (0.2, 3.0), (0.2, 2.0), (0.2, 2.0)]) == 2
    assert best_trial([(inf, inf), (inf, inf)]) == 0
    assert best_trial([]) == 0


def test_a_tuning_run_is_looked_at_less_often_and_all_have_the_budget() -> None:
    settings = Settings("p", budget="20grads", evaluations=8)
    entry = Entry("a", "sgd", "", {}, True)
    tune, report = (
        Task(settings, entry, item, {}, NOMINAL_RATES)
        for item in (Item.trial("a", 0), Item("report", "a", -1, 1))
    )
    assert (tune.seed, report.seed) == (TUNING_SEED, 1)
    assert (tune.tuning, report.tuning) == (True, False)
    assert (len(tune.grid), len(report.grid)) == (3, 9)
    assert tune.limits == report.limits == Limits(forwards=60.0)
    assert replace(tune, settings=replace(settings, evaluations=1)).grid == (0.0, 1.0)
    assert pickle.loads(pickle.dumps(report)) == report

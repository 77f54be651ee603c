"""Runs: their order, their names, and what each is told."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest

from anyorder.compare.plan.items import Item, Task, best_trial, items
from anyorder.compare.plan.limits import Limits
from anyorder.compare.plan.plan import Entry, Plan
from anyorder.compare.plan.seeds import TUNING_SEED
from anyorder.compare.plan.settings import Settings
from anyorder.oracle.ledger import NOMINAL_RATES


def changed(plan: Plan, **settings: Any) -> Plan:
    return replace(plan, settings=replace(plan.settings, **settings))


def test_runs_take_turns(small_plan: Plan) -> None:
    keys = [item.key for item in items(changed(small_plan, defaults=True))]
    assert keys == [
        "tune/a/0/0", "tune/a/0/1", "tune/a/0/2",
        "report/a/0/0", "report/b/0/0", "default/a/0/0", "default/b/0/0",
        "report/a/0/1", "report/b/0/1", "default/a/0/1", "default/b/0/1",
    ]  # fmt: skip


def test_tunings_are_independent_and_seeds_nested_in_them(small_plan: Plan) -> None:
    runs = items(changed(small_plan, tunings=2))
    assert {(run.tuning, run.seed) for run in runs if run.kind == "tune"} == {(0, 1000), (1, 1001)}
    seeds = [(run.tuning, run.seed) for run in runs if run.kind == "report" and run.method == "a"]
    assert seeds == [(0, 0), (1, 10_000), (0, 1), (1, 10_001)]


def test_more_seeds_and_tunings_renumber_nothing(small_plan: Plan) -> None:
    before = items(changed(small_plan, tunings=2))
    after = items(changed(small_plan, tunings=3, seeds=5))
    assert set(before) < set(after)
    seeds = [run.seed for run in after if run.kind == "report" and run.method == "a"]
    assert len(set(seeds)) == 15


def test_the_twin_has_seeds_of_its_own_and_no_default_runs(small_plan: Plan) -> None:
    twin = replace(small_plan.methods[0], name="a (A/A)", twin_of="a")
    plan = replace(small_plan, methods=[*small_plan.methods, twin])
    runs = [
        run for run in items(changed(plan, tunings=2, defaults=True)) if run.method == twin.name
    ]
    assert {run.kind for run in runs} == {"tune", "report"}
    assert {run.seed for run in runs if run.kind == "tune"} == {501_000, 501_001}
    assert {run.seed for run in runs if run.kind == "report"} == {
        500_000,
        500_001,
        510_000,
        510_001,
    }


def test_what_cannot_be_used_is_not_run(small_plan: Plan) -> None:
    broken = replace(small_plan.methods[1], failed="no such module")
    plan = replace(small_plan, methods=[small_plan.methods[0], broken])
    assert {run.method for run in items(plan)} == {"a"}


def test_files_of_runs_have_names_of_their_own() -> None:
    names = [
        "a/b.py:M", "a-b.py:M", "a b.py:M", "a%2Fb.py:M", "a_b.py:M", "a?b.py:M", "a#b.py:M",
        "a\nb.py:M", "a", "a-0", "a (A/A)", "x" * 400, "x" * 401,
    ]  # fmt: skip
    runs = [
        run for name in names for run in (Item.trial(name, 0, 1), Item.trial(name, 1, 0),
        Item.report(name, 0, 1), Item.default(name, 1), Item.report(name, 1, 0))
    ]  # fmt: skip
    files = [run.file_name for run in runs]
    assert len({name.casefold() for name in files}) == len(runs)
    assert all("/" not in name and len(name) < 255 for name in files)
    assert Item.report("sgd", 0, 1).file_name == "report-sgd-0-1.jsonl"


def test_methods_alternate_in_tuning() -> None:
    settings = Settings("p", budget="1s", tune=2, seeds=1, defaults=False)
    plan = Plan(settings, [Entry(name, "x", "", {}, True) for name in "ab"], "", {})
    keys = [item.key for item in items(plan)]
    assert keys == [
        "tune/a/0/0", "tune/b/0/0", "tune/a/0/1", "tune/b/0/1", "report/a/0/0", "report/b/0/0",
    ]  # fmt: skip


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
        Item("tune", "torch.optim:SGD", 2, 3, 1002),
        Item("report", "folder/mine.py:Mine", 1, -1, 10_002),
        Item("default", "a", 0, -1, 0),
        Item.trial("a (A/A)", 1, 0),
    ):
        assert Item.from_key(item.key) == item
    assert str(Item.trial("sgd", 0, 3)) == "tune 3  sgd"
    assert str(Item.trial("sgd", 1, 3)) == "tune 1/3  sgd"


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
        for item in (Item.trial("a", 0, 0), Item.report("a", 0, 1))
    )
    assert (tune.seed, report.seed) == (TUNING_SEED, 1)
    assert (tune.is_trial, report.is_trial) == (True, False)
    assert (len(tune.grid), len(report.grid)) == (3, 9)
    assert tune.limits == report.limits == Limits(forwards=60.0)
    assert replace(tune, settings=replace(settings, evaluations=1)).grid == (0.0, 1.0)
    assert pickle.loads(pickle.dumps(report)) == report

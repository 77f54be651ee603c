"""Plans: what makes two of them the same, their runs, their budgets."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest

from anyorder.compare.plan.entrants import resolve
from anyorder.compare.plan.plan import (
    TUNING_SEED,
    Item,
    Limits,
    Plan,
    PlanError,
    best_trial,
    grid,
    items,
    joined,
    method_entry,
)
from anyorder.oracle.ledger import NOMINAL_RATES, BudgetError

MEASURED = {**NOMINAL_RATES, "grads": 2.5}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500grads", Limits(forwards=1500.0)),
        ("60s", Limits(seconds=60.0)),
        ("200steps", Limits(steps=200)),
        ("10products,500values", Limits(forwards=60.0)),
        ("100ranked,5s", Limits(forwards=100.0, seconds=5.0)),
        ("30forwards,100grads", Limits(forwards=30.0)),
    ],
)
def test_budgets_become_limits_for_everybody(text: str, expected: Limits) -> None:
    assert Limits.read(text, NOMINAL_RATES) == expected


def test_measured_rates_change_the_price() -> None:
    assert Limits.read("100grads", MEASURED).forwards == 250.0


def test_rankings_have_no_price() -> None:
    with pytest.raises(BudgetError, match="ranking has no price"):
        Limits.read("100rankings", NOMINAL_RATES)


def test_the_limit_that_comes_first_counts() -> None:
    limits = Limits(forwards=100.0, seconds=10.0)
    assert limits.spent(50.0, 1.0, 7) == 0.5
    assert limits.spent(50.0, 8.0, 7) == 0.8
    assert limits.to_dict() == {"forwards": 100.0, "seconds": 10.0}


def test_the_grid_is_denser_at_the_beginning() -> None:
    points = grid(20)
    gaps = [b - a for a, b in itertools.pairwise(points)]
    assert (points[0], points[-1], len(points)) == (0.0, 1.0, 21)
    assert gaps == sorted(gaps)


def test_runs_take_turns(small_plan: Plan) -> None:
    keys = [item.key for item in items(replace(small_plan, defaults=True))]
    assert keys == [
        "tune/a/0", "tune/a/1", "tune/a/2",
        "report/a/0", "report/b/0", "default/a/0", "default/b/0",
        "report/a/1", "report/b/1", "default/a/1", "default/b/1",
    ]  # fmt: skip


def test_methods_alternate_in_tuning() -> None:
    entry = {"spec": "x", "version": "", "fixed": {}, "search": True}
    plan = Plan("p", "1s", ({"name": "a", **entry}, {"name": "b", **entry}), tune=2, seeds=1)
    keys = [item.key for item in items(plan)]
    assert keys == ["tune/a/0", "tune/b/0", "tune/a/1", "tune/b/1", "report/a/0", "report/b/0"]


@pytest.mark.parametrize("tune", [0, 1])
def test_without_a_choice_there_is_no_tuning(small_plan: Plan, tune: int) -> None:
    assert {item.kind for item in items(replace(small_plan, tune=tune))} == {"report"}


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


def test_a_stored_plan_is_the_plan(small_plan: Plan) -> None:
    stored = json.loads(json.dumps(small_plan.to_dict()))
    assert Plan.from_dict(stored) == small_plan
    assert stored["fingerprint"] == small_plan.fingerprint


def test_what_changes_the_numbers_changes_the_fingerprint(small_plan: Plan) -> None:
    changes: list[dict[str, Any]] = [
        {"budget": "21grads"}, {"problem": "digits"}, {"options": {"dim": 3}}, {"tune": 4},
        {"schedule": "cosine"}, {"rates": "measured"}, {"device": "cuda"}, {"threads": 3},
        {"jobs": 2}, {"versions": {"torch": "1"}}, {"source": "ab"}, {"evaluations": 3},
    ]  # fmt: skip
    prints = {replace(small_plan, **change).fingerprint for change in changes}
    assert len(prints) == len(changes)
    assert small_plan.fingerprint not in prints
    assert replace(small_plan, seeds=9).fingerprint == small_plan.fingerprint


def test_the_same_plan_goes_on(small_plan: Plan) -> None:
    assert joined(small_plan, small_plan, extend=False) == small_plan


def test_another_plan_is_refused_with_the_difference(small_plan: Plan) -> None:
    other = replace(small_plan, budget="5s", tune=9)
    with pytest.raises(PlanError, match=r"budget: '20grads' there, '5s' now; tune: 3 there, 9 now"):
        joined(small_plan, other, extend=True)


def test_a_changed_method_is_refused(small_plan: Plan) -> None:
    changed = ({**small_plan.methods[0], "version": "2"},)
    with pytest.raises(PlanError, match="a, version: '1' there, '2' now"):
        joined(small_plan, replace(small_plan, methods=changed), extend=True)


def test_more_seeds_and_methods_only_if_asked(small_plan: Plan) -> None:
    third = {**small_plan.methods[1], "name": "c"}
    more = replace(small_plan, seeds=5, methods=(third,), defaults=True)
    with pytest.raises(PlanError, match=r"method c, 5 seeds instead of 2.*--extend"):
        joined(small_plan, more, extend=False)
    agreed = joined(small_plan, more, extend=True)
    assert [method["name"] for method in agreed.methods] == ["a", "b", "c"]
    assert (agreed.seeds, agreed.defaults) == (5, True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tune": -1}, "tune: expected at least 0"),
        ({"seeds": 0}, "seeds: expected at least 1"),
        ({"jobs": 0}, "jobs: expected at least 1"),
        ({"threads": 0}, "threads: expected at least 1"),
        ({"schedule": "linear"}, "schedule: expected one of constant, cosine, got 'linear'"),
        ({"rates": "guessed"}, "rates: expected one of"),
        ({"sampler": "grid"}, "sampler: expected one of"),
        ({"autocast": "int8"}, "autocast: expected one of"),
        ({"budget": "3 parsecs"}, "cannot read the budget '3 parsecs'"),
    ],
)
def test_wrong_numbers_and_words(small_plan: Plan, change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(small_plan, **change)


def test_an_entry_holds_what_storage_can() -> None:
    entry = method_entry(resolve("adamw", "mine", {"betas": "0.8,0.9"}))
    assert entry == {
        "name": "mine",
        "spec": "adamw",
        "version": resolve("adamw").version,
        "fixed": {"betas": [0.8, 0.9]},
        "search": True,
    }


def test_the_best_trial_by_value_then_loss_then_order() -> None:
    inf = float("inf")
    assert best_trial([(0.5, 1.0), (0.2, 3.0), (0.2, 2.0), (0.2, 2.0)]) == 2
    assert best_trial([(inf, inf), (inf, inf)]) == 0
    assert best_trial([]) == 0

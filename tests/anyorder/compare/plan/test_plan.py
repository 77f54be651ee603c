"""Plans: what makes two of them the same, and how one is extended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from anyorder.compare.plan.entrants import resolve
from anyorder.compare.plan.plan import Entry, Plan, PlanError, joined


def changed(plan: Plan, **settings: Any) -> Plan:
    return replace(plan, settings=replace(plan.settings, **settings))


def test_what_changes_the_numbers_changes_the_fingerprint(small_plan: Plan) -> None:
    changes: list[dict[str, Any]] = [
        {"budget": "21grads"}, {"problem": "digits"}, {"options": {"dim": 3}}, {"tune": 4},
        {"schedule": "cosine"}, {"rates": "measured"}, {"device": "cuda"}, {"threads": 3},
        {"jobs": 2}, {"evaluations": 3},
    ]  # fmt: skip
    plans = [changed(small_plan, **change) for change in changes]
    plans += [replace(small_plan, versions={"torch": "1"}), replace(small_plan, source="ab")]
    prints = {plan.fingerprint for plan in plans}
    assert len(prints) == len(plans)
    assert small_plan.fingerprint not in prints
    assert changed(small_plan, seeds=9).fingerprint == small_plan.fingerprint


def test_the_same_plan_goes_on(small_plan: Plan) -> None:
    assert joined(small_plan, small_plan, extend=False) == small_plan


def test_another_plan_is_refused_with_the_difference(small_plan: Plan) -> None:
    other = changed(small_plan, budget="5s", tune=9)
    with pytest.raises(PlanError, match=r"budget: '20grads' there, '5s' now; tune: 3 there, 9 now"):
        joined(small_plan, other, extend=True)


def test_a_changed_method_is_refused(small_plan: Plan) -> None:
    other = [replace(small_plan.methods[0], version="2")]
    with pytest.raises(PlanError, match="a, version: '1' there, '2' now"):
        joined(small_plan, replace(small_plan, methods=other), extend=True)


def test_more_seeds_and_methods_only_if_asked(small_plan: Plan) -> None:
    third = replace(small_plan.methods[1], name="c")
    more = replace(changed(small_plan, seeds=5, defaults=True), methods=[third])
    with pytest.raises(PlanError, match=r"method c, 5 seeds instead of 2.*--extend"):
        joined(small_plan, more, extend=False)
    agreed = joined(small_plan, more, extend=True)
    assert [method.name for method in agreed.methods] == ["a", "b", "c"]
    assert (agreed.settings.seeds, agreed.settings.defaults) == (5, True)


def test_an_entry_holds_what_storage_can() -> None:
    entry = Entry.of(resolve("adamw", "mine", {"betas": "0.8,0.9"}))
    version = resolve("adamw").version
    assert entry == Entry("mine", "adamw", version, {"betas": [0.8, 0.9]}, search=True)

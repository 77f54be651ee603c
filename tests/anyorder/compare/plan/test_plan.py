"""Plans: what makes two of them the same, and how one is extended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anyorder.compare.plan.entrants import _load_file, resolve, resolve_all
from anyorder.compare.plan.plan import Entry, Plan, PlanError, joined
from anyorder.compare.plan.settings import Settings


def changed(plan: Plan, **settings: Any) -> Plan:
    return replace(plan, settings=replace(plan.settings, **settings))


def test_what_changes_the_numbers_changes_the_fingerprint(small_plan: Plan) -> None:
    changes: list[dict[str, Any]] = [
        {"budget": "21grads"}, {"problem": "digits"}, {"options": {"dim": 3}}, {"tune": 4},
        {"schedule": "cosine"}, {"rates": "measured"}, {"device": "cuda"},
        {"evaluations": 3}, {"sampler_seed": 1},
    ]  # fmt: skip
    plans = [changed(small_plan, **change) for change in changes]
    plans += [replace(small_plan, versions={"torch": "1"}), replace(small_plan, source="ab")]
    prints = {plan.fingerprint for plan in plans}
    assert len(prints) == len(plans)
    assert small_plan.fingerprint not in prints
    same: list[dict[str, Any]] = [
        {"seeds": 9}, {"tunings": 3}, {"defaults": True}, {"twin": True}, {"baseline": "b"},
        {"timeout": "1h"}, {"jobs": 2}, {"threads": 3},
    ]  # fmt: skip
    assert {changed(small_plan, **c).fingerprint for c in same} == {small_plan.fingerprint}


@pytest.mark.parametrize("name", ["jobs", "threads"])
def test_what_changes_times_counts_where_the_budget_is_one(small_plan: Plan, name: str) -> None:
    timed = changed(small_plan, budget="1s")
    assert changed(timed, **{name: 2}).fingerprint != timed.fingerprint
    with pytest.raises(PlanError, match=name):
        joined(timed, changed(timed, **{name: 2}), extend=True)
    assert joined(small_plan, changed(small_plan, **{name: 2}), extend=False) == small_plan


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
    assert (small_plan.looks, agreed.looks) == (1, 2)
    assert joined(agreed, more, extend=True) == agreed
    assert joined(agreed, small_plan, extend=False) == agreed


def test_looks_count_what_changes_verdicts(small_plan: Plan) -> None:
    tuned = joined(small_plan, changed(small_plan, tunings=4), extend=True)
    assert (tuned.settings.tunings, tuned.looks) == (4, 2)
    assert joined(tuned, changed(tuned, seeds=9), extend=True).looks == 3
    assert joined(small_plan, changed(small_plan, defaults=True), extend=True).looks == 1


def test_the_baseline_and_its_twin() -> None:
    entrants = resolve_all(["sgd", "lion", "adamw"])
    plan = Plan.of(Settings("p"), entrants)
    assert plan.baseline == "adamw"
    twin = plan.methods[-1]
    assert (twin.name, twin.twin_of, twin.spec) == ("adamw (A/A)", "adamw", "adamw")
    assert twin.entrant().space == plan.methods[2].entrant().space
    assert Plan.of(Settings("p"), entrants[:2]).baseline == "sgd"
    chosen = Plan.of(Settings("p", baseline="lion", twin=False), entrants)
    assert (chosen.baseline, len(chosen.methods)) == ("lion", 3)
    with pytest.raises(PlanError, match="'adam' is not one of the methods .* sgd, lion, adamw"):
        Plan.of(Settings("p", baseline="adam"), entrants)


def test_added_methods_do_not_change_the_baseline() -> None:
    first = Plan.of(Settings("p"), resolve_all(["sgd", "lion"]))
    more = joined(first, Plan.of(Settings("p"), resolve_all(["adamw"])), extend=True)
    assert [each.name for each in more.methods] == ["sgd", "lion", "sgd (A/A)", "adamw"]
    assert more.baseline == "sgd"
    assert joined(more, first, extend=False) == more
    with pytest.raises(PlanError, match="baseline: 'sgd' there, 'lion' now"):
        joined(more, changed(first, baseline="lion"), extend=True)


def test_a_twin_can_be_added() -> None:
    entrants = resolve_all(["sgd"])
    alone = Plan.of(Settings("p", twin=False), entrants)
    both = Plan.of(Settings("p"), entrants)
    with pytest.raises(PlanError, match="a twin of the baseline"):
        joined(alone, both, extend=False)
    assert joined(alone, both, extend=True).methods == both.methods
    assert joined(both, alone, extend=False) == both


def test_a_method_that_could_not_be_used_can_be_added_when_it_can(tmp_path: Path) -> None:
    path = tmp_path / "late.py"
    names = ["sgd", f"late={path}:Late"]
    before = Plan.of(Settings("p"), resolve_all(names))
    assert "does not exist" in str(before.methods[1].failed)
    assert before.methods[1].entrant().failed == before.methods[1].failed
    path.write_text("import torch\nclass Late(torch.optim.SGD): pass\n")
    _load_file.cache_clear()
    after = Plan.of(Settings("p"), resolve_all(names))
    with pytest.raises(PlanError, match="method late"):
        joined(before, after, extend=False)
    agreed = joined(before, after, extend=True)
    assert [each.failed for each in agreed.methods] == [None, None, None]
    assert (agreed.methods[1], agreed.looks) == (after.methods[1], 2)
    with pytest.raises(PlanError, match="late cannot be used here: .*does not exist"):
        joined(after, before, extend=True)


def test_ranges_are_part_of_the_plan(small_plan: Plan) -> None:
    ranges = {"lr": "log:1e-3..1"}
    entry = Entry.of(resolve("sgd", ranges=ranges))
    assert entry.space == ranges
    assert str(entry.entrant().space[0]) == "lr log 0.001..1 (user)"
    stored = replace(small_plan, methods=[entry])
    with pytest.raises(PlanError, match=r"sgd, space: \{'lr': .*\} there, \{\} now"):
        joined(stored, replace(stored, methods=[replace(entry, space={})]), extend=True)


def test_an_entry_holds_what_storage_can() -> None:
    entry = Entry.of(resolve("adamw", "mine", {"betas": "0.8,0.9"}))
    version = resolve("adamw").version
    assert entry == Entry("mine", "adamw", version, {"betas": [0.8, 0.9]}, search=True)

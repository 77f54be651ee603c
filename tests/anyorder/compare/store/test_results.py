"""Results: built from outcomes, written whole, read back, compared without times."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from example_results import as_json, costs, facts, lost, plan, point, run

from anyorder.compare.plan.entrants import resolve_all
from anyorder.compare.plan.items import items
from anyorder.compare.plan.plan import Plan
from anyorder.compare.plan.settings import Settings
from anyorder.compare.run.records import Final, RunRecord
from anyorder.compare.store import results
from anyorder.compare.store.schema import Facts, Outcome, ResultsError, TrialCost
from anyorder.compare.store.storage import StorageError

ENTRANTS = resolve_all(["sgd", "adamw"])


def record(loss: float = 0.25, seed: int = 0, **changes: Any) -> RunRecord:
    one = point(
        seconds=2.0, forwards=60.0, calls=costs(grads=20), steps=20, val_loss=loss, metric=loss
    )
    final = Final(loss, loss)
    return replace(run(seed, []), **{"curve": [one], "final": final, **changes})


def wanted(**settings: Any) -> Plan:
    return plan("sgd", "adamw", **{"tune": 2, "seeds": 2, **settings})


def outcomes(plan: Plan, **special: Any) -> dict[str, Outcome]:
    """Every run of a plan, all of them fine but those that are given by key."""
    found: dict[str, Outcome] = {}
    for item in items(plan):
        config = {"lr": 0.01 * (item.index + 2), "momentum": 0.5, "weight_decay": 0.01}
        config = {
            d.name: config[d.name] for e in ENTRANTS if e.name == item.method for d in e.space
        }
        made = special.get(item.key.replace("/", "_"), record(seed=item.seed))
        found[item.key] = Outcome(config, config, made, "m")
    return found


def build(plan: Plan, found: dict[str, Outcome], known: Facts | None = None) -> Any:
    return results.build(plan, known or facts(), ENTRANTS, found, "anyorder compare p")


def test_the_best_trial_is_chosen_and_its_settings_are_shown() -> None:
    found = build(wanted(), outcomes(wanted(), tune_sgd_0_1=record(0.1)))
    sgd, adamw = found.methods
    (tuned,), (other,) = sgd.tunings, adamw.tunings
    assert (tuned.chosen, other.chosen) == (1, 0)
    assert tuned.settings["lr"] == pytest.approx(0.03)
    assert tuned.settings["nesterov"] is False
    assert [trial.value for trial in tuned.trials] == [0.25, 0.1]
    assert tuned.trials[0].cost == TrialCost(2.0, 60.0, 20)
    assert other.settings["betas"] == [0.9, 0.999]
    assert (found.baseline, [m.twin_of for m in found.methods]) == ("adamw", [None, None])
    assert found.warnings == []
    assert found.environment.machines == ["m"]


def test_a_method_without_a_usable_run_says_why() -> None:
    bad = lost(record(), "failed", error="KeyError at x.py:3: 'y'", curve=[])
    wild = lost(record())
    special = {"report_sgd_0_0": bad, "report_sgd_0_1": bad, "report_adamw_0_0": wild}
    found = build(wanted(), outcomes(wanted(), **special))
    assert found.methods[0].failed == "all 2 runs failed: KeyError at x.py:3: 'y'"
    assert found.methods[1].failed is None


def test_the_default_stands_in_where_it_was_chosen() -> None:
    special = {f"default_{m}_0_{s}": None for m in ("sgd", "adamw") for s in (0, 1)}
    both = wanted(defaults=True)
    found = build(both, outcomes(both, **special))
    assert found.methods[0].default_runs == found.methods[0].runs


def test_unequal_starts_are_said() -> None:
    other = outcomes(wanted(), report_adamw_0_1=record(seed=1, start_hash="other"))
    (warning,) = build(wanted(), other).warnings
    assert "did not start at the same point (seed 1)" in warning


def test_a_busy_machine_and_several_machines_are_said() -> None:
    known = facts()
    known.environment = replace(known.environment, load=9.0)
    timed = wanted(budget="20s")
    found = outcomes(timed)
    found["report/sgd/0/0"].machine = "another"
    says = "\n".join(build(timed, found, known).warnings)
    assert "seconds of 2 machines are compared: another, m" in says
    assert "load 9.0 on 2 cores" in says


def test_a_best_value_at_the_edge_is_said() -> None:
    found = outcomes(wanted(), tune_sgd_0_1=record(0.1))
    found["tune/sgd/0/1"].config = {"lr": 0.99, "momentum": 0.5}
    (warning,) = build(wanted(), found).warnings
    assert warning.startswith("sgd: the best lr (0.99) is at the upper edge of the search range")


def test_the_space_that_was_reached_is_in_the_results() -> None:
    four = wanted(tune=4, tunings=2)
    found = outcomes(four, tune_sgd_0_1=record(0.1), tune_sgd_0_3=record(0.2))
    found["tune/sgd/0/1"].config = {"lr": 0.9, "momentum": 0.5}
    found["tune/sgd/0/3"].config = {"lr": 10.0, "momentum": 0.5}
    made = build(four, found)
    first, second = made.methods[0].tunings
    assert (first.chosen, second.chosen) == (1, 0)
    assert (first.space[0].extended, first.space[0].ends) == (True, (1e-4, 10.0))
    assert (second.space[0].extended, second.space[0].ends) == (False, (1e-4, 1.0))
    assert [run.tuning for run in made.methods[0].runs] == [0, 0, 1, 1]
    assert not [line for line in made.warnings if "edge" in line]  # 0.9 is inside by now


def test_one_seed_says_what_it_cannot_say() -> None:
    one = wanted(seeds=1)
    (warning,) = build(one, outcomes(one)).warnings
    assert warning.startswith("one seed per method: nothing here separates a better method")


def test_a_method_that_could_not_be_used_is_in_the_results() -> None:
    entrants = resolve_all(["sgd", "torch.optim:Adm"])
    both = Plan.of(Settings("p", budget="20grads", tune=0, twin=False, defaults=False), entrants)
    found = {item.key: Outcome({}, {}, record(seed=item.seed), "m") for item in items(both)}
    sgd, lost = results.build(both, facts(), entrants, found, "anyorder compare p").methods
    assert (sgd.failed, lost.tunings, lost.runs, lost.class_name) == (None, [], [], lost.spec)
    assert "Did you mean 'Adam'" in str(lost.failed)


def test_measured_rates_price_the_budget() -> None:
    assert build(wanted(), outcomes(wanted())).budget == {"forwards": 60.0}
    measured = wanted(rates="measured")
    found = build(measured, outcomes(measured))
    assert found.budget == {"forwards": pytest.approx(56.4)}
    assert found.rates.used == "measured"


def test_there_and_back(tmp_path: Path) -> None:
    found = build(wanted(), outcomes(wanted()))
    results.keep(tmp_path / "results.json", found)
    assert results.load(tmp_path / "results.json") == found
    assert os.listdir(tmp_path) == ["results.json"]


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    found = as_json(build(wanted(), outcomes(wanted())))
    for text, says in (
        (None, "cannot read"),
        ('{"schema": 2, ', "cannot read"),
        (json.dumps({**found, "schema": 1}), "have schema 1"),
        (json.dumps({**found, "methods": 3}), r"results\.methods: expected a list"),
    ):
        if text is not None:
            path.write_text(text)
        with pytest.raises(ResultsError, match=says):
            results.load(path)


def test_nothing_is_left_of_a_file_that_could_not_be_written(
    tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "results.json").write_text("old")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        results.keep_text(tmp_path / "results.json", "new")
    assert (tmp_path / "results.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["results.json"]


def test_times_are_stripped_and_numbers_are_not() -> None:
    found = build(wanted(), outcomes(wanted()))
    other = copy.deepcopy(found)
    other.created = "later"
    other.environment.load = 3.0
    other.methods[0].runs[0].curve[0].seconds = 99.0
    other.methods[0].runs[0].peak_bytes = 99
    assert results.strip_times(other) == results.strip_times(found)
    other.methods[0].runs[0].curve[0].val_loss = 0.26
    assert results.strip_times(other) != results.strip_times(found)


def test_settings_that_json_does_not_know_are_put_in_words() -> None:
    assert results.plain({"a": (1, 2), "b": Path("x"), "c": None}) == {
        "a": [1, 2],
        "b": "x",
        "c": None,
    }

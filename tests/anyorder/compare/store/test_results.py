"""Results: built from outcomes, written whole, read back, compared without times."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anyorder.compare.plan.entrants import resolve_all
from anyorder.compare.plan.plan import Plan, items, method_entry
from anyorder.compare.run.worker import failure
from anyorder.compare.store import results
from anyorder.compare.store.schema import ResultsError
from anyorder.compare.store.storage import StorageError
from anyorder.oracle.ledger import COUNTS

COSTS = dict.fromkeys((*COUNTS, "skipped", "bytes_sent"), 1)
POINT = {
    "fraction": 1.0, "seconds": 2.0, "forwards": 60.0, "calls": COSTS, "steps": 20,
    "train_loss": 0.5, "val_loss": 0.25, "metric": 0.25, "oracle_seconds": 1.0,
    "optimizer_seconds": 1.0, "data_seconds": 0.0, "peak_bytes": 5,
}  # fmt: skip
FACTS = {
    "problem": {
        "name": "p", "spec": "p", "options": {}, "metric": "loss", "goal": "min", "target": None,
        "optimum": 0.0, "schedule": "constant",
    },
    "probe": {
        "parameters": 7,
        "measured": {"values": 1.0, "grads": 2.5, "products": None, "ranked": 1.0},
    },
    "environment": {"load": 0.0, "cores": 2, "jobs": 1, "threads": 1},
}  # fmt: skip
ENTRANTS = resolve_all(["sgd", "adamw"])


def record(loss: float | None = 0.25, seed: int = 0, **changes: Any) -> dict[str, Any]:
    made = {
        **failure({"seed": seed, "config": {}}, "budget", ""),
        "status": "done",
        "error": None,
        "start_hash": f"hash {seed}",
        "curve": [{**POINT, "val_loss": loss, "metric": loss}],
        "final": {"loss": loss, "metric": loss},
    }
    return {**made, **changes}


@pytest.fixture
def plan() -> Plan:
    return Plan("p", "20grads", tuple(map(method_entry, ENTRANTS)), tune=2, seeds=2)


def outcomes(plan: Plan, **special: Any) -> dict[str, Any]:
    """Every run of a plan, all of them fine but those that are given by key."""
    found: dict[str, Any] = {}
    for item in items(plan):
        config = {"lr": 0.1 * (item.index + 2), "momentum": 0.5, "weight_decay": 0.01}
        config = {
            d.name: config[d.name] for e in ENTRANTS if e.name == item.method for d in e.space
        }
        made = special.get(item.key.replace("/", "_"), record(seed=item.seed))
        found[item.key] = {"config": config, "settings": config, "record": made, "machine": "m"}
    return found


def build(plan: Plan, found: dict[str, Any]) -> Any:
    return results.build(plan, FACTS, ENTRANTS, found, "anyorder compare p")


def test_the_best_trial_is_chosen_and_its_settings_are_shown(plan: Plan) -> None:
    found = build(plan, outcomes(plan, tune_sgd_1=record(0.1)))
    sgd, adamw = found["methods"]
    assert (sgd["chosen"], adamw["chosen"]) == (1, 0)
    assert sgd["settings"]["lr"] == pytest.approx(0.3)
    assert sgd["settings"]["nesterov"] is False
    assert [trial["value"] for trial in sgd["tuning"]] == [0.25, 0.1]
    assert sgd["tuning"][0]["cost"] == {"seconds": 2.0, "forwards": 60.0, "steps": 20}
    assert adamw["settings"]["betas"] == [0.9, 0.999]
    assert found["warnings"] == []
    assert found["environment"]["machines"] == ["m"]


def test_a_method_without_a_usable_run_says_why(plan: Plan) -> None:
    bad = record(None, status="failed", error="KeyError at x.py:3: 'y'", curve=[])
    lost = record(None, status="diverged", error="the loss is nan")
    found = build(plan, outcomes(plan, report_sgd_0=bad, report_sgd_1=bad, report_adamw_0=lost))
    assert found["methods"][0]["failed"] == "all 2 runs failed: KeyError at x.py:3: 'y'"
    assert found["methods"][1]["failed"] is None


def test_the_default_stands_in_where_it_was_chosen(plan: Plan) -> None:
    wanted = replace(plan, defaults=True)
    special = {f"default_{m}_{s}": None for m in ("sgd", "adamw") for s in (0, 1)}
    found = build(wanted, outcomes(wanted, **special))
    assert found["methods"][0]["default_runs"] == found["methods"][0]["runs"]


def test_unequal_starts_are_said(plan: Plan) -> None:
    found = build(plan, outcomes(plan, report_adamw_1=record(seed=1, start_hash="other")))
    (warning,) = found["warnings"]
    assert "did not start at the same point (seed 1)" in warning


def test_a_busy_machine_and_several_machines_are_said(plan: Plan, monkeypatch: Any) -> None:
    busy = copy.deepcopy(FACTS)
    busy["environment"]["load"] = 9.0
    monkeypatch.setitem(FACTS, "environment", busy["environment"])
    timed = replace(plan, budget="20s")
    found = outcomes(timed)
    found["report/sgd/0"]["machine"] = "another"
    says = "\n".join(build(timed, found)["warnings"])
    assert "seconds of 2 machines are compared: another, m" in says
    assert "load 9.0 on 2 cores" in says


def test_a_best_value_at_the_edge_is_said(plan: Plan) -> None:
    found = outcomes(plan, tune_sgd_1=record(0.1))
    found["tune/sgd/1"]["config"] = {"lr": 0.99, "momentum": 0.5}
    (warning,) = build(plan, found)["warnings"]
    assert warning.startswith("sgd: the best lr (0.99) lies at the edge of what was searched")


def test_measured_rates_price_the_budget(plan: Plan) -> None:
    assert build(plan, outcomes(plan))["budget"] == {"forwards": 60.0}
    measured = replace(plan, rates="measured")
    found = build(measured, outcomes(measured))
    assert found["budget"] == {"forwards": 50.0}
    assert found["rates"]["used"] == "measured"


def test_there_and_back(plan: Plan, tmp_path: Path) -> None:
    found = build(plan, outcomes(plan))
    results.write(found, tmp_path / "results.json")
    assert results.load(tmp_path / "results.json") == found
    assert os.listdir(tmp_path) == ["results.json"]


def test_damaged_and_foreign_files(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(ResultsError, match="cannot read"):
        results.load(path)
    path.write_text('{"schema": 1, ')
    with pytest.raises(ResultsError, match="cannot read"):
        results.load(path)
    path.write_text(json.dumps({**build(plan, outcomes(plan)), "schema": 2}))
    with pytest.raises(ResultsError, match="has schema 2|have schema 2"):
        results.load(path)
    path.write_text(json.dumps({**build(plan, outcomes(plan)), "methods": 3}))
    with pytest.raises(ResultsError, match=r"results\.methods: expected a list"):
        results.load(path)


def test_nothing_is_left_of_a_file_that_could_not_be_written(
    tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "results.json").write_text("old")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        results.write_whole(tmp_path / "results.json", "new")
    assert (tmp_path / "results.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["results.json"]


def test_times_are_stripped_and_numbers_are_not(plan: Plan) -> None:
    found = build(plan, outcomes(plan))
    other = copy.deepcopy(found)
    other["created"] = "later"
    other["environment"]["load"] = 3.0
    other["methods"][0]["runs"][0]["curve"][0]["seconds"] = 99.0
    other["methods"][0]["runs"][0]["peak_bytes"] = 99
    assert results.strip_times(other) == results.strip_times(found)
    other["methods"][0]["runs"][0]["curve"][0]["val_loss"] = 0.26
    assert results.strip_times(other) != results.strip_times(found)


def test_settings_that_json_does_not_know_are_put_in_words() -> None:
    assert results.plain({"a": (1, 2), "b": Path("x"), "c": None}) == {
        "a": [1, 2],
        "b": "x",
        "c": None,
    }

from __future__ import annotations

from typing import Any

import pytest

from anyorder.compare.plan.seeds import BLOCK, TUNING_SEED
from anyorder_studies.contest import tuned_seeds
from anyorder_studies.harness import plan
from anyorder_studies.malladi2023mezo.study import MeZOFineTuning, steps_to_the_same_loss
from anyorder_studies.study import Results

MEMORY = {"weights": 8_000_000, "inference": 10_000_000, "mezo": 11_000_000, "adamw": 44_000_000}


def run_of(checks: list[int], losses: list[float], accuracy: float, price: float) -> dict[str, Any]:
    accuracies = [40.0, *[0.0] * (len(checks) - 2), accuracy]
    return {
        "checks": checks, "losses": losses, "accuracies": accuracies, "forwards_per_step": price,
        "lr": 0.1, "upright": 97.0,
    }  # fmt: skip


def test_both_methods_meet_in_every_seed_with_equal_budgets() -> None:
    units = plan(MeZOFineTuning(seeds=3), "small")
    *runs, memory = units
    assert memory["method"] == "memory"
    assert [(u["method"], u["seed"]) for u in runs] == [
        (method, seed)
        for seed in tuned_seeds({"tunings": 6, "seeds": 3})
        for method in ("sgd", "mezo")
    ]
    assert {len(unit["grid"]) for unit in runs} == {5}
    assert {u["steps"] for u in runs if u["method"] == "mezo"} == {100 * runs[0]["steps"]}
    assert max(unit["seed"] % BLOCK for unit in runs) < TUNING_SEED


def test_units_tune_and_learn_or_count_bytes() -> None:
    study = MeZOFineTuning()
    unit = {"method": "sgd", "seed": 0, "steps": 5, "grid": [1e-30, 0.3], "tuning_seeds": 1}
    found = study.run(unit)
    assert found["lr"] == 0.3
    assert found["checks"] == [0, 1, 2, 3, 4, 5]
    assert found["upright"] > 93
    memory = study.run({"method": "memory", "width": 64, "layers": 1, "batch": 1})
    assert memory["inference"] < memory["mezo"] < memory["adamw"]


def test_steps_are_read_where_both_have_come_to() -> None:
    sgd = run_of([0, 1, 2, 3], [2.0, 1.0, 0.5, 0.2], 90.0, 3.0)
    mezo = run_of([0, 10, 20, 30], [2.0, 1.5, 0.6, 0.7], 85.0, 2.0)
    assert steps_to_the_same_loss(sgd, mezo) == (2, 20)
    assert steps_to_the_same_loss(mezo, sgd) == (20, 2)
    nothing = run_of([0, 10], [2.0, 3.0], 10.0, 2.0)
    assert steps_to_the_same_loss(sgd, nothing) == (1, 1)


def test_measurements_are_those_of_pairs() -> None:
    results: Results = []
    for seed in range(2):
        sgd = run_of([0, 1, 2], [2.0, 1.0, 0.5], 90.0 + seed, 3.0)
        mezo = run_of([0, 100, 200], [2.0, 1.2, 0.5], 85.0 + seed, 2.0)
        unit = {"seed": seed, "grid": [0.1, 0.2, 0.3]}
        results += [({"method": "sgd", **unit}, sgd), ({"method": "mezo", **unit}, mezo)]
    results.append(({"method": "memory"}, MEMORY))
    measured = MeZOFineTuning().measure(results)
    assert measured["memory_ratio"].value == pytest.approx(1.1)
    assert measured["adamw_memory_ratio"].value == pytest.approx(4.0)
    assert measured["accuracy_gap"].low == pytest.approx(5.0)
    assert measured["steps_ratio"].value == pytest.approx(100.0)
    assert measured["forwards_ratio"].value == pytest.approx(100 * 2 / 3)
    assert measured["recovered_percent"].value == pytest.approx(100 * (0.9 + 46 / 51) / 2)
    assert measured["lr_at_edge"].value == 2
    assert measured["megabytes_mezo"].value == 11

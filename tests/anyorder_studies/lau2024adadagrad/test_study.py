from __future__ import annotations

from typing import Any

import pytest

from anyorder.compare.plan.seeds import BLOCK, TUNING_SEED
from anyorder_studies.contest import tuning_seeds
from anyorder_studies.harness import plan
from anyorder_studies.lau2024adadagrad.study import (
    GRID,
    NAMES,
    AdAdaGradAgainstFixedBatches,
    Plan,
    plan_of,
)
from anyorder_studies.study import Results

UNIT: dict[str, Any] = {"seed": 0, "epochs": 1, "grid": [1e-9, 0.1], "tuning_seeds": 1}


def test_every_contestant_has_the_same_grid_and_as_many_seeds() -> None:
    units = plan(AdAdaGradAgainstFixedBatches(seeds=3), "small")
    assert len(units) == 6 * 3 * len(NAMES)  # six tunings
    assert {tuple(unit["grid"]) for unit in units} == {tuple(GRID)}
    assert {unit["tuning_seeds"] for unit in units} == {1}
    assert max(unit["seed"] % BLOCK for unit in units) < TUNING_SEED


@pytest.mark.parametrize("name", ["largest", "eta_1"])
def test_a_unit_trains_with_the_step_size_that_tuning_chose(name: str) -> None:
    found = AdAdaGradAgainstFixedBatches().run({"name": name, **UNIT})
    assert found["lr"] == found["held_out_lr"] == 0.1  # 1e-9 leaves the weights as they were
    assert found["loss"] < 2.2 and found["test_loss"] < 2.2 and 0.2 < found["test_accuracy"] <= 1.0
    sizes = [size for _, size in found["sizes"]]
    assert sizes == sorted(set(sizes)) and sizes[-1] <= 1024
    if name == "largest":
        assert sizes == [1024]
        assert (found["steps"], found["samples"]) == (2, 2048)
    else:
        assert sizes[0] == 8 and found["steps"] > 2


def test_the_control_takes_as_many_steps() -> None:
    grid, seeds = tuple(UNIT["grid"]), 1
    trial = {**UNIT, "seed": tuning_seeds(1)[0]}
    grown = AdAdaGradAgainstFixedBatches().run({"name": "eta_1", **trial})
    control = plan_of("matched", 1, grid, seeds)
    assert control.smallest == control.largest == round(grown["samples"] / grown["steps"])
    found = AdAdaGradAgainstFixedBatches().run({"name": "matched", **trial})
    assert found["steps"] == pytest.approx(grown["steps"], abs=2)
    assert plan_of("eta_0.5", 1, grid, seeds) == Plan(8, 1024, 0.5, 1)


def test_measurements_are_ratios_of_pairs() -> None:
    losses = dict.fromkeys(NAMES, 4.0) | {"eta_1": 1.0, "matched": 2.0}
    results: Results = []
    for name in NAMES:
        for seed in range(2):
            unit = {"name": name, "seed": seed, "grid": [0.1, 0.2, 0.3]}
            loss = losses[name] * (1 + seed)  # a seed that is twice as hard for all
            results.append((
                unit,
                {
                    "loss": loss, "test_loss": 3 * loss, "test_accuracy": 0.9 if loss < 2 else 0.8,
                    "held_out_lr": 0.3 if name == "largest" else 0.2,
                    "steps": 10 if name == "eta_1" else 40, "samples": 100, "sizes": [[0, 8]],
                    "lr": 0.1 if name == "smallest" else 0.2,
                },
            ))  # fmt: skip
    measured = AdAdaGradAgainstFixedBatches().measure(results)
    assert measured["test_loss_ratio_largest"].value == pytest.approx(0.25)
    assert measured["loss_ratio_matched"].value == pytest.approx(0.5)
    assert measured["steps_ratio_smallest"].value == pytest.approx(0.25)
    assert measured["accuracy_gain_largest"].value == pytest.approx(5.0)
    assert measured["loss_eta_1"].value == pytest.approx(1.5)
    assert measured["test_loss_eta_1"].value == pytest.approx(4.5)
    assert measured["lr_at_edge"].value == 2  # the smallest batch's, and the largest one's

from __future__ import annotations

import math
from typing import Any

import pytest

from anyorder.compare.plan.seeds import BLOCK, TUNING_SEED
from anyorder_studies.adly2024exadam.study import (
    CONTESTANTS,
    EVERY,
    GRID,
    THEIRS,
    EXAdamAgainstAdam,
    _speed,
    growth,
    steps_to,
)
from anyorder_studies.contest import WORST, Repetitions
from anyorder_studies.harness import plan
from anyorder_studies.study import Results

UNIT = {"seed": 0, "epochs": 1, "grid": [1e-30, 2e-3], "tuning_seeds": 1}


def result(curve: list[float], **changes: Any) -> dict[str, Any]:
    return {
        "loss": curve[-1], "curve": curve, "curve_equal": curve, "accuracy": 0.5, "lr": 1e-2,
        "sweep": [1.0, 2.0, 3.0], **changes,
    }  # fmt: skip


def test_every_seed_meets_all_contestants_with_equal_budgets() -> None:
    units = plan(EXAdamAgainstAdam(seeds=3), "small")
    assert len(units) == 10 * 3 * len(CONTESTANTS)  # ten tunings
    assert all(unit["grid"] == GRID and unit["tuning_seeds"] == 3 for unit in units)
    assert max(unit["seed"] % BLOCK for unit in units) < TUNING_SEED
    assert THEIRS in GRID


@pytest.mark.parametrize("contestant", CONTESTANTS)
def test_a_unit_sweeps_and_trains_with_what_was_best(contestant: str) -> None:
    found = EXAdamAgainstAdam().run({"contestant": contestant, **UNIT})
    assert found["lr"] == 2e-3  # 1e-30 leaves the network as it was
    assert found["sweep"][1] < found["sweep"][0]
    assert found["loss"] < 2.3
    assert len(found["curve"]) == len(found["curve_equal"]) == 18 // EVERY
    assert found["curve_equal"][-1] > found["curve"][-1]  # 1e-4 is too small here


def test_contestants_differ() -> None:
    losses = {
        name: EXAdamAgainstAdam().run({"contestant": name, **UNIT})["loss"] for name in CONTESTANTS
    }
    assert len(set(losses.values())) == len(CONTESTANTS)


def test_growth_is_that_of_version_1() -> None:
    assert growth(1) == pytest.approx(math.log(2))
    assert growth(999) == pytest.approx(math.log(2000) / 2)


def test_steps_are_counted_to_the_first_point_low_enough() -> None:
    assert steps_to([3.0, 2.0, 1.0, 2.0], 2.0) == 2 * EVERY
    assert steps_to([3.0, 2.0], 1.0) == 4 * EVERY  # never: twice the run


def test_a_comparison_of_speeds_treats_both_alike() -> None:
    one, other = result([4.0, 2.0, 1.5, 1.8]), result([5.0, 4.0, 3.0, 1.0])
    over = Repetitions([0, 1])
    there = _speed([one] * 2, [other] * 2, "curve", over)
    back = _speed([other] * 2, [one] * 2, "curve", over)
    assert there.value == pytest.approx(3 / 4)  # 1.5 is what both come to
    assert back.value == pytest.approx(4 / 3)


def test_measurements_are_ratios_of_pairs() -> None:
    curves = {
        "adam": [4.0, 2.0, 1.0, 1.5],
        "adam_growing": [4.0, 2.0, 2.0, 2.0],
        "exadam": [1.0, 0.5, 0.5, 0.75],  # at 1, Adam's third point, in its first
        "exadam_growing": [4.0, 3.0, 2.0, 1.0],
        "exadam_no_boost": [4.0, 3.0, 2.0, 1.5],
    }
    results: Results = []
    for seed in range(2):
        for name, curve in curves.items():
            unit = {"contestant": name, "seed": seed, "grid": [1e-3, 1e-2, 1e-1]}
            scaled = [(1 + seed) * loss for loss in curve]  # a seed twice as hard for all
            accuracy = 0.6 if name == "exadam" else 0.5
            equal = scaled if name == "adam" else [WORST] * 4
            lr = 1e-3 if name == "exadam_growing" else 1e-2
            row = result(scaled, accuracy=accuracy, curve_equal=equal, lr=lr)
            results.append((unit, row))
    measured = EXAdamAgainstAdam().measure(results)
    assert measured["steps_ratio"].value == pytest.approx(1 / 3)
    assert measured["steps_ratio_equal"].value == pytest.approx(8 / 3)  # diverged: 8 over 3
    assert measured["steps_ratio_growing"].value == pytest.approx(4 / 3)
    assert measured["loss_ratio"].value == pytest.approx(0.5)
    assert measured["boost_ratio"].value == pytest.approx(0.5)
    assert measured["corrections_ratio"].value == pytest.approx(1.0)
    assert measured["growing_ratio"].value == pytest.approx(0.5)
    assert measured["growth_for_adam"].value == pytest.approx(2.0 / 1.5)
    assert measured["accuracy_gain"].value == pytest.approx(10.0)
    assert measured["lr_at_edge"].value == 1  # version 1's
    assert measured["lr_adam"].value == 1e-2

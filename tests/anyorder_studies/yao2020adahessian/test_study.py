from __future__ import annotations

from typing import Any

import pytest

from anyorder.compare.plan.seeds import BLOCK, TUNING_SEED
from anyorder_studies.harness import plan
from anyorder_studies.study import Results
from anyorder_studies.yao2020adahessian.study import (
    GRIDS,
    AdaHessianAgainstAdamW,
    lr_key,
    newton_error,
    step_seconds,
)

LOSSES = {"rows": 1.0, "none": 2.0, "adamw": 4.0, "adamw_longer": 0.5}


def test_all_contestants_meet_in_every_seed_with_equal_budgets() -> None:
    units = plan(AdaHessianAgainstAdamW(seeds=3), "small")
    assert [unit["seed"] % BLOCK for unit in units] == [0, 1, 2] * 16  # sixteen tunings
    assert {len(grid) for unit in units for grid in unit["grids"].values()} == {6}
    assert max(unit["seed"] % BLOCK for unit in units) < TUNING_SEED


def test_one_step_on_a_diagonal_quadratic_is_newtons() -> None:
    assert max(newton_error(seed) for seed in range(3)) < 1e-12


def test_a_step_with_a_second_derivative_costs_more() -> None:
    seconds = step_seconds(0, turns=3)
    assert set(seconds) == {"rows", "none", "adamw"}
    assert seconds["rows"] > seconds["adamw"] > 0


def test_a_unit_trains_all_contestants_with_what_tuning_chose() -> None:
    grids = {name: [1e-30, grid[3]] for name, grid in GRIDS.items()}
    found = AdaHessianAgainstAdamW().run(
        {"seed": 0, "epochs": 1, "tuning_seeds": 1, "grids": grids}
    )
    for name in GRIDS:
        assert found[lr_key(name)] == GRIDS[name][3]  # 1e-30 leaves the network as it was
        suffix = lr_key(name).removeprefix("lr_")
        assert found[f"loss_{suffix}"] == found[f"curve_{suffix}"][-1] < 2.2
    assert found["steps_rows"] == found["steps_none"] == found["steps_adamw"] == 18
    assert found["steps_adamw_longer_seconds"] in (36, 54, 72, 90, 108)
    assert len(found["curve_rows"]) == len(found["curve_adamw_longer_seconds"]) == 2


def test_measurements_are_ratios_of_pairs() -> None:
    results: Results = []
    grids = {name: [0.1, 0.2, 0.3] for name in GRIDS}
    for seed in range(2):
        result: dict[str, Any] = {"newton_error": 3e-14 * seed}
        result |= {"seconds_rows": 0.003 * (1 + seed), "seconds_adamw": 0.001 * (1 + seed)}
        for name, loss in LOSSES.items():
            suffix = lr_key(name).removeprefix("lr_")
            for key in ("loss", "validation_loss"):
                result[f"{key}_{suffix}"] = loss * (1 + seed)
            result[f"accuracy_{suffix}"] = 0.9 - loss / 10
            result[f"test_accuracy_{suffix}"] = 0.9 - loss / 20
            result[lr_key(name)] = 0.3 if name == "none" else 0.2
        results.append(({"seed": seed, "grids": grids}, result))
    measured = AdaHessianAgainstAdamW().measure(results)
    assert measured["loss_ratio_epochs"].value == pytest.approx(0.25)
    assert measured["loss_ratio_seconds"].value == pytest.approx(2.0)
    assert measured["averaging_ratio"].high == pytest.approx(0.5)
    # Both seeds say 3; the interval is what another sitting may say.
    step = measured["step_ratio"]
    assert (step.low, step.value, step.high) == pytest.approx((3 / 1.25, 3.0, 3 * 1.25))
    assert measured["accuracy_gain_loss_ratio_epochs"].value == pytest.approx(30.0)
    assert measured["test_accuracy_gain_loss_ratio_epochs"].value == pytest.approx(15.0)
    assert measured["newton_error"].value == 0.0
    assert measured["lr_at_edge"].value == 1

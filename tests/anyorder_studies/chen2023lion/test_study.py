from __future__ import annotations

from typing import Any

import pytest

from anyorder.compare.plan.seeds import BLOCK, TUNING_SEED
from anyorder_studies.chen2023lion.study import CONTESTS, GRIDS, LionAgainstAdamW
from anyorder_studies.harness import plan
from anyorder_studies.study import Results

UNIT = {
    "batch": 512, "seed": 0, "epochs": 1, "grid": [1e-30, 1e-2], "tuning_seeds": 1,
}  # fmt: skip


def result(loss: float, **changes: Any) -> dict[str, Any]:
    return {
        "loss": loss, "validation_loss": loss, "accuracy": 0.5, "test_accuracy": 0.5,
        "state_bytes": 8, "lr": 0.1,
        **changes,
    }  # fmt: skip


def test_every_seed_meets_both_methods_at_every_batch_with_equal_budgets() -> None:
    units = plan(LionAgainstAdamW(seeds=3), "small")
    assert len(units) == 8 * 3 * 2 * len(CONTESTS)  # eight tunings
    assert {len(unit["grid"]) for unit in units} == {6}
    assert {unit["tuning_seeds"] for unit in units} == {2}
    assert max(unit["seed"] % BLOCK for unit in units) < TUNING_SEED
    steps = {u["contest"]: u["epochs"] * (1_197 // u["batch"]) for u in units}
    assert steps["512_longer"] == steps["64"] == 9 * steps["512"]
    assert len(GRIDS["lion"]) == len(GRIDS["adamw"])


@pytest.mark.parametrize(("method", "buffers"), [("lion", 1), ("adamw", 2)])
def test_a_unit_trains_with_the_step_size_that_tuning_chose(method: str, buffers: int) -> None:
    found = LionAgainstAdamW().run({"method": method, **UNIT})
    assert found["lr"] == 1e-2  # 1e-30 leaves the network as it was
    assert found["held_out_lr"] == 1e-2
    assert found["loss"] < 2.3
    assert 0.1 < found["test_accuracy"] <= 1.0
    weights = 64 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10
    assert found["state_bytes"] == 4 * weights * buffers


def test_measurements_are_ratios_of_pairs() -> None:
    results: Results = []
    for contest, lion in zip(CONTESTS, (3.0, 2.0, 1.0, 9.0), strict=True):
        for seed in range(2):
            unit = {"contest": contest, "seed": seed, "grid": [0.1, 0.2, 0.3]}
            factor = 1.0 + seed  # a seed that is twice as hard for both
            results.append(
                ({**unit, "method": "lion"}, result(lion * factor, accuracy=0.6, test_accuracy=0.7))
            )
            results.append(
                ({**unit, "method": "adamw"}, result(2 * factor, state_bytes=16, lr=0.2))
            )
    measured = LionAgainstAdamW().measure(results)
    assert measured["loss_ratio_16"].value == pytest.approx(1.5)
    assert measured["loss_ratio_512"].high == pytest.approx(0.5)
    assert measured["trend"].value == pytest.approx(1 / 3)
    assert measured["state_ratio"].value == 0.5
    assert measured["accuracy_gain_64"].value == pytest.approx(10.0)
    assert measured["test_accuracy_gain_512_longer"].value == pytest.approx(20.0)
    assert measured["lr_at_edge"].value == len(CONTESTS)  # Lion's, in each
    assert (measured["lr_lion_16"].value, measured["lr_adamw_16"].value) == (0.1, 0.2)

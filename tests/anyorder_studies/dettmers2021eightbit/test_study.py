from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from anyorder.compare.plan.seeds import TUNING_SEED
from anyorder_studies.dettmers2021eightbit.study import (
    BLOCKS,
    GRID,
    MODELS,
    EightBitState,
)
from anyorder_studies.harness import plan
from anyorder_studies.study import Results

Loss = Callable[[str, str], float]


def test_every_seed_meets_every_contestant_and_every_error() -> None:
    units = plan(EightBitState(seeds=3), "small")
    assert len(units) == 3 * (2 * len(BLOCKS) + sum(len(MODELS[m]) for m in MODELS))
    training = [unit for unit in units if unit["model"] != "none"]
    assert all(unit["grid"] == GRID for unit in training)
    assert max(unit["seed"] for unit in training) < TUNING_SEED
    assert {unit["contestant"] for unit in training if unit["model"] == "lm_stable"} == {
        "float32", "dynamic_2048",
    }  # fmt: skip


def test_smoke_tries_the_middle_of_the_grid() -> None:
    grids = [u["grid"] for u in plan(EightBitState(), "smoke") if u["model"] != "none"]
    assert all(grid == [GRID[len(GRID) // 2]] for grid in grids)


def test_everybody_gets_the_step_size_of_float32() -> None:
    unit = {
        "model": "digits", "contestant": "linear_tensor", "seed": 0, "steps": 3,
        "grid": [1e-30, 1e-2], "tuning_seeds": 1,
    }  # fmt: skip
    found = EightBitState().run(unit)
    assert found["lr"] == found["own_lr"] == 1e-2  # 1e-30 leaves the network as it was
    assert found["train_loss"] == found["own_train_loss"] < math.log(10)


def test_blocks_and_the_dynamic_table_lower_the_error() -> None:
    unit = {"model": "none", "seed": 0, "numbers": 1 << 14, "draws": 2}
    run = EightBitState().run
    whole = run({**unit, "linear": False, "block": 0})
    small = run({**unit, "linear": False, "block": 256})
    linear = run({**unit, "linear": True, "block": 256})
    for key in ("error", "lost"):
        ordered = zip(small[key], whole[key], linear[key], strict=True)
        assert len(small[key]) == 2
        assert all(a < b < c for a, b, c in ordered)


def results(loss: Loss) -> Results:
    """Two seeds, the second twice as hard in perplexity for everyone."""
    found: Results = []
    for seed in range(2):
        for linear in (False, True):
            for block in BLOCKS:
                error = {256: 0.1, 2048: 0.2, 0: 0.4}[block] * (1 + linear)
                unit = {"model": "none", "linear": linear, "block": block, "seed": seed}
                found.append((unit, {"error": [error] * 3, "lost": [error / 10] * 3}))
        for model in MODELS:
            for name in MODELS[model]:
                unit = {"model": model, "contestant": name, "seed": seed, "grid": GRID}
                result = {
                    "loss": loss(model, name) + seed * math.log(2),
                    "unstable": float(name.endswith("unguarded") and seed == 0),
                    "state_bytes": 8 if name == "float32" else 2,
                    "lr": GRID[0] if model == "digits" else GRID[2],
                }
                if model == "digits":
                    result |= {"accuracy": 0.9 if name == "float32" else 0.45}
                    result |= {"train_loss": 0.1, "own_train_loss": 0.2, "own_lr": GRID[1]}
                found.append((unit, result))
    return found


def test_measurements_are_ratios_of_pairs() -> None:
    perplexity = {
        "dynamic_tensor": 4.0, "linear_tensor": 12.0, "linear_2048": 10.0,
        "dynamic_tensor_unguarded": 3.0,
    }  # fmt: skip
    measured = EightBitState().measure(results(lambda _, name: math.log(perplexity.get(name, 2.0))))
    assert measured["perplexity_ratio"].value == pytest.approx(1.0)
    assert measured["perplexity_ratio_dynamic_tensor_lm"].value == pytest.approx(2.0)
    assert measured["perplexity_float32_lm"].value == pytest.approx(3.0)
    assert measured["accuracy_ratio"].value == pytest.approx(0.5)
    assert measured["state_ratio"].value == 0.25
    assert measured["table_ratio"].high == pytest.approx(3.0)
    assert measured["table_ratio_2048"].value == pytest.approx(5.0)
    assert measured["block_ratio"].value == pytest.approx(2.0)
    assert measured["unguarded_block_ratio"].value == pytest.approx(1.5)
    assert measured["block_error_ratio"].n == 6
    assert measured["block_error_ratio"].value == pytest.approx(0.5)
    assert measured["error_linear_tensor"].value == pytest.approx(0.8)
    assert measured["lost_dynamic_256"].value == pytest.approx(0.01)
    assert measured["unstable_linear_tensor_unguarded_lm"].value == 0.5
    assert measured["unstable_linear_tensor_lm"].value == 0.0
    assert measured["train_loss_ratio_bf16_digits"].value == pytest.approx(1.0)
    assert measured["own_train_loss_ratio_bf16_digits"].value == pytest.approx(1.0)
    assert measured["own_lr_bf16_digits"].value == GRID[1]
    assert (measured["lr_digits"].value, measured["lr_lm"].value) == (GRID[0], GRID[2])
    assert "perplexity_ratio_float32_lm" not in measured
    assert measured["lr_at_edge"].value == 1  # that of digits


def test_every_claim_is_measured() -> None:
    study = EightBitState()
    measured = study.measure(results(lambda model, name: 1.0))
    assert {claim.quantity for claim in study.claims} <= set(measured)

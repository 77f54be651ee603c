from __future__ import annotations

import itertools
from typing import Any

import pytest

from anyorder_studies.contest import tuned_seeds
from anyorder_studies.glentis2025scale.study import GRIDS, METHODS, WORST, ScaleAgainstAdam, share
from anyorder_studies.harness import plan
from anyorder_studies.study import Results

#: Embeddings of bytes and places, two blocks, output layer; vectors are norms and biases.
BLOCK = 64 * 192 + 64 * 64 + 2 * 64 * 256
VECTORS = 2 * (4 * 64 + 192 + 64 + 256 + 64) + 2 * 64
WEIGHTS = 256 * 64 + 64 * 64 + 2 * BLOCK + VECTORS + 64 * 256


def result(loss: float, **changes: Any) -> dict[str, Any]:
    return {
        "loss": loss, "curve": [loss], "state_bytes": 10, "weight_bytes": 30, "lr": 0.2, **changes,
    }  # fmt: skip


def test_every_seed_meets_all_methods_with_equal_budgets() -> None:
    units = plan(ScaleAgainstAdam(seeds=3), "small")
    assert len(units) == 6 * 3 * len(METHODS)  # six tunings
    assert {len(unit["grid"]) for unit in units} == {5}
    assert {unit["tuning_seeds"] for unit in units} == {2}
    assert {unit["steps"] for unit in units} == {800}
    assert {unit["seed"] for unit in units} == set(tuned_seeds({"tunings": 6, "seeds": 3}))
    for grid in GRIDS.values():
        assert all(b == pytest.approx(2 * a) for a, b in itertools.pairwise(grid))


@pytest.mark.parametrize(
    ("method", "numbers"),
    [
        ("sgd", 0),
        ("column_sgd", 2 * VECTORS),
        ("scale", 2 * VECTORS + 64 * 256),
        ("adam", 2 * WEIGHTS),
    ],
)
def test_a_unit_trains_with_the_step_size_that_tuning_chose(method: str, numbers: int) -> None:
    best = 0.3 if method == "sgd" else 3e-3
    unit = {"method": method, "seed": 0, "steps": 8, "grid": [1e-30, best], "tuning_seeds": 1}
    found = ScaleAgainstAdam().run(unit)
    assert found["lr"] == best  # 1e-30 leaves the model as it was
    assert found["loss"] < WORST and len(found["curve"]) == 8
    assert found["state_bytes"] == 4 * numbers
    assert found["weight_bytes"] == 4 * WEIGHTS


def test_a_run_that_diverges_counts_as_a_guess() -> None:
    unit = {"method": "sgd", "seed": 0, "steps": 8, "grid": [1e6], "tuning_seeds": 1}
    found = ScaleAgainstAdam().run(unit)
    assert found["loss"] == WORST


def test_warm_up_and_cosine() -> None:
    shares = [share(step, 100) for step in range(100)]
    assert shares[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert shares[10] == 1.0 and shares[55] == pytest.approx(0.5) and 0 < shares[-1] < 1e-3
    assert shares[10:] == sorted(shares[10:], reverse=True)


def test_measurements_are_ratios_of_pairs() -> None:
    results: Results = []
    for seed in range(2):
        factor = 1.0 + seed  # a seed that is twice as hard for all
        for method, loss in {"sgd": 8.0, "column_sgd": 4.0, "scale": 3.0, "adam": 2.0}.items():
            unit = {"method": method, "seed": seed, "grid": [0.1, 0.2, 0.4]}
            changes = {"state_bytes": 70, "lr": 0.1} if method == "adam" else {}
            results.append((unit, result(loss * factor, **changes)))
    measured = ScaleAgainstAdam().measure(results)
    assert measured["loss_ratio"].value == pytest.approx(1.5)
    assert measured["column_ratio"].high == pytest.approx(0.5)
    assert measured["momentum_ratio"].value == pytest.approx(0.75)
    assert measured["sgd_over_adam"].value == pytest.approx(4.0)
    assert measured["memory_ratio"].value == 0.4
    assert measured["kilobytes_adam"].value == 0.1
    assert measured["lr_at_edge"].value == 1  # Adam's
    assert measured["loss_scale"].value == pytest.approx(4.5)

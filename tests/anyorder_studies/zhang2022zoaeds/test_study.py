from __future__ import annotations

from typing import Any

import pytest

from anyorder.compare.plan.seeds import BLOCK, TUNING_SEED
from anyorder_studies.contest import tuned_seeds
from anyorder_studies.harness import plan
from anyorder_studies.study import Results
from anyorder_studies.zhang2022zoaeds.defence import METHODS, TRAINED
from anyorder_studies.zhang2022zoaeds.study import BlackBoxDefence, queries_to_the_same


def run_of(noisy: list[float], certified: float) -> dict[str, Any]:
    return {
        "noisy": noisy, "queries": [33.0 * i for i in range(len(noisy))], "certified": certified,
        "standard": certified + 10, "cosine": certified / 100, "lr": 3e-3,
    }  # fmt: skip


def test_all_defences_meet_with_equal_tuning() -> None:
    units = plan(BlackBoxDefence(), "small")
    seeds = tuned_seeds(BlackBoxDefence.scales["small"])
    assert [(u["method"], u["seed"]) for u in units] == [(m, s) for s in seeds for m in METHODS]
    assert {len(u["grid"]) for u in units} == {3}
    assert max(u["seed"] % BLOCK for u in units) < TUNING_SEED


def test_queries_are_read_where_both_have_come_to() -> None:
    fast, slow = run_of([0.5, 0.8, 0.9], 0), run_of([0.4, 0.5, 0.6, 0.8], 0)
    assert queries_to_the_same(fast, slow) == (33.0, 99.0)
    assert queries_to_the_same(slow, fast) == (99.0, 33.0)
    assert queries_to_the_same(run_of([0.7, 0.6], 0), run_of([0.3, 0.5, 0.6], 0)) == (33.0, 66.0)


def test_measurements_are_those_of_pairs() -> None:
    results: Results = []
    for seed in (0, BLOCK):
        for place, method in enumerate(METHODS):
            unit = {"method": method, "seed": seed, "grid": [1e-3, 3e-3, 1e-2]}
            noisy = [0.5, 0.6, 0.9] if method == "zo_ds" else [0.5, 0.9, 0.9]
            results.append((unit, run_of(noisy, 50.0 + place + (seed > 0))))
    measured = BlackBoxDefence().measure(results)
    place = {method: METHODS.index(method) for method in METHODS}
    pixels = place["zo_ae_ds"] - place["zo_ds"]
    assert measured["certified_gain_over_pixels"].value == pytest.approx(pixels)
    assert measured["certified_gain_over_none"].value == pytest.approx(place["zo_ae_ds"])
    assert measured["cosine_gain"].value == pytest.approx(pixels / 100)
    assert measured["queries_ratio"].value == pytest.approx(0.5)
    assert measured["certified_zo_ae_ds"].value == pytest.approx(50.5 + place["zo_ae_ds"])
    assert measured["lr_at_edge"].value == 0
    assert {claim.quantity for claim in BlackBoxDefence.claims} <= set(measured)


def test_settings_at_the_ends_of_the_grid_are_counted() -> None:
    results: Results = [
        ({"method": method, "seed": seed, "grid": [3e-3, 1e-2]}, run_of([0.5, 0.6], 50.0))
        for seed in (0, BLOCK)
        for method in METHODS
    ]
    assert BlackBoxDefence().measure(results)["lr_at_edge"].value == 2 * len(TRAINED)

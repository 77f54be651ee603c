from __future__ import annotations

from typing import Any

import pytest

from anyorder.compare.plan.seeds import BLOCK, TUNING_SEED
from anyorder_studies.contest import tuned_seeds
from anyorder_studies.harness import plan
from anyorder_studies.shu2023fzoos.quadratics import METHODS
from anyorder_studies.shu2023fzoos.study import FEW, MANY, FederatedSurrogates, costs_to_the_same
from anyorder_studies.study import Results


def run_of(best: list[float], per_round: int) -> dict[str, Any]:
    count = len(best)
    return {
        "best": best, "queries": [per_round * i for i in range(count)],
        "floats": [4 * i for i in range(count)], "setting": [0.01, 5],
    }  # fmt: skip


def test_all_methods_meet_on_the_same_functions() -> None:
    units = plan(FederatedSurrogates(), "small")
    seeds = tuned_seeds(FederatedSurrogates.scales["small"])
    assert [(u["seed"], u["dim"], u["method"]) for u in units] == [
        (seed, dim, method) for seed in seeds for dim in (FEW, MANY) for method in METHODS
    ]
    assert {u["budget"] for u in units} == {800}
    assert max(u["seed"] % BLOCK for u in units) < TUNING_SEED


def test_costs_are_read_where_all_have_come_to() -> None:
    trial = {"fzoos": run_of([1, 0.2, 0.01], 50), "fedzo": run_of([1, 0.8, 0.5, 0.2], 30)}
    assert costs_to_the_same(trial, "queries") == {"fzoos": 50, "fedzo": 90}
    assert costs_to_the_same(trial, "rounds") == {"fzoos": 1, "fedzo": 3}
    assert costs_to_the_same(trial, "floats") == {"fzoos": 4, "fedzo": 12}
    stuck = {"fzoos": run_of([1, 0.5], 50), "fedzo": run_of([1, 1], 30)}
    assert costs_to_the_same(stuck, "rounds") == {"fzoos": 1, "fedzo": 1}


def test_the_best_baseline_counts() -> None:
    results: Results = []
    for seed in (0, BLOCK):
        for dim in (FEW, MANY):
            for method in METHODS:
                unit = {"method": method, "dim": dim, "seed": seed}
                fast = method == "scaffold_2" or (method == "fzoos" and dim == FEW)
                best = [1.0, 0.1] if fast else [1.0, 0.5, 0.3, 0.1]
                results.append((unit, run_of(best, 60 if method == "fzoos" else 120)))
    measured = FederatedSurrogates().measure(results)
    assert measured[f"queries_ratio_{FEW}"].value == pytest.approx(0.5)
    assert measured[f"queries_ratio_{FEW}_to_fedzo"].value == pytest.approx(60 / 360)
    assert measured[f"queries_ratio_{MANY}"].value == pytest.approx(1.5)
    assert measured[f"rounds_ratio_{MANY}"].value == pytest.approx(3.0)
    assert measured[f"rounds_ratio_{FEW}"].value == pytest.approx(1.0)
    assert measured[f"gap_after_over_before_{FEW}_fedzo"].value == pytest.approx(0.1)
    assert measured["lr_at_edge"].value == len(results)
    assert {claim.quantity for claim in FederatedSurrogates.claims} <= set(measured)

from __future__ import annotations

from typing import Any

import pytest

from anyorder.compare.plan.seeds import BLOCK, TUNING_SEED
from anyorder_studies.harness import plan
from anyorder_studies.study import Results
from anyorder_studies.tang2023zoranksgd.cosines import RANKED, VALUED
from anyorder_studies.tang2023zoranksgd.descents import GRIDS, TASKS
from anyorder_studies.tang2023zoranksgd.study import RanksAgainstValues

EVALUATIONS = {
    "ranks": [0, 20, 40],
    "values": [0, 10, 20],
    "mezo": [0, 40, 80],
    "cma": [0, 40, 80],
}


def made(scale: float = 1.0) -> Results:
    results: Results = []
    for seed in range(2):
        cosines = {f"ranks_{m}_{k}": 0.2 + 0.1 * seed for m, k in RANKED}
        cosines |= {f"values_{m}": 2 * (0.2 + 0.1 * seed) for m in VALUED}
        results.append(({"task": "cosines", "seed": seed}, cosines))
        for task in TASKS:
            for method in GRIDS[task]:
                evaluations = EVALUATIONS[method]
                best = [8.0, 4.0, (1.0 + seed) * scale]
                result: dict[str, Any] = {"evaluations": evaluations, "best": best}
                result["setting"] = [0.3] if method in ("mezo", "cma") else [1.0, 0.1]
                if task in ("scales", "boosting"):
                    result["test_ratio"] = 0.9
                unit: dict[str, Any] = {"task": task, "method": method, "seed": seed}
                # The third method's setting lies inside this grid, the other two's at its end.
                unit["grid"] = [[lr] for lr in (0.1, 0.3, 1.0)]
                results.append((unit, result))
    return results


def test_everybody_meets_in_every_task_and_seed_with_equal_budgets() -> None:
    units = plan(RanksAgainstValues(seeds=3), "small")
    runs = [unit for unit in units if unit["task"] != "cosines"]
    assert len(units) == 8 * 3 + len(runs)  # eight tunings
    assert len(runs) == 8 * 3 * 3 * len(TASKS)
    assert {len(unit["grid"]) for unit in runs} == {10}
    for task in TASKS:
        assert len({unit["budget"] for unit in runs if unit["task"] == task}) == 1
    assert max(unit["seed"] % BLOCK for unit in units) < TUNING_SEED


def test_units_tune_and_minimise_or_average_cosines() -> None:
    study = RanksAgainstValues()
    unit = {
        "task": "quadratic", "method": "mezo", "seed": 0, "budget": 40, "grid": [[1e-9], [0.03]],
        "tuning_seeds": 1,
    }  # fmt: skip
    found = study.run(unit)
    assert found["setting"] == [0.03]
    assert len(found["best"]) == 21
    cosines = study.run({"task": "cosines", "seed": 0, "draws": 2, "dim": 10})
    assert set(cosines) == {"ranks_15_15", "ranks_15_3", "ranks_15_1", "ranks_50_50",
                            "values_15", "values_50"}  # fmt: skip


def test_measurements_are_those_of_pairs() -> None:
    measured = RanksAgainstValues().measure(made())
    assert measured["cosine_ranks_15_15"].value == pytest.approx(0.25)
    assert measured["share_of_values_50_50"].high == pytest.approx(0.5)
    for task in TASKS:
        third, setting = ("cma", "deviation") if task == "boosting" else ("mezo", "lr")
        assert measured[f"evaluations_ratio_{task}"].value == pytest.approx(2.0)
        assert measured[f"evaluations_ratio_{task}_to_{third}"].value == pytest.approx(0.5)
        assert measured[f"{setting}_{task}_{third}"].value == 0.3
        assert measured[f"mu_{task}_ranks"].value == 0.1
    seeds = measured["loss_after_over_before_quadratic_ranks"]
    assert seeds.value == pytest.approx((1 / 8 * 2 / 8) ** 0.5)  # independent: geometric mean
    assert measured["lr_at_edge"].value == 2 * len(TASKS)
    splits = measured["validation_ratio_scales"]
    assert splits.value == pytest.approx((1 / 8 + 2 / 8) / 2)  # overlapping: mean and range
    assert 1 / 8 <= splits.low < splits.high <= 2 / 8
    assert measured["test_ratio_scales_mezo"].value == pytest.approx(0.9)
    assert measured["test_ratio_boosting_cma"].value == pytest.approx(0.9)


def test_cosines_without_a_sign_have_no_ratio() -> None:
    results = made()
    results[0][1]["ranks_15_1"] = -0.01
    measured = RanksAgainstValues().measure(results)
    assert "share_of_values_15_1" not in measured
    assert "share_of_values_15_3" in measured

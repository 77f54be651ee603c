from __future__ import annotations

from typing import Any

import pytest
import torch

from anyorder import SGD, SSO
from anyorder.compare.plan.seeds import TUNING_SEED
from anyorder_studies.contest import WORST
from anyorder_studies.harness import plan
from anyorder_studies.lavington2023sso.study import (
    GRIDS,
    PRICES,
    Plan,
    SSOAgainstDescent,
    _trained,
    affordable,
    optimizer_for,
    same_step,
    task_of,
)
from anyorder_studies.study import Results


def test_every_contestant_has_as_many_step_sizes_and_gradients_as_its_rival() -> None:
    units = plan(SSOAgainstDescent(seeds=2), "small")
    assert len(units) == 2 * len(GRIDS)
    assert {len(unit["grid"]) for unit in units} == {6}
    assert max(unit["seed"] for unit in units) < TUNING_SEED
    for task in ("full", "batch", "network"):
        mine = [unit for unit in units if unit["name"].startswith(task)]
        assert len({unit["targets"] for unit in mine}) == 1


@pytest.mark.parametrize(("name", "batch"), [("full_gd", 456), ("batch_10", 32)])
def test_tasks_start_alike_for_all_contestants(name: str, batch: int) -> None:
    task, again = task_of(name, 3), task_of("full_10", 3)
    assert task.batch == batch and len(task.answers) == 456
    for a, b in zip(task.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert task.judged() == pytest.approx(task.closure(slice(None))().item())


def test_contestants_are_what_their_names_say() -> None:
    model = task_of("full_gd", 0).model
    assert isinstance(optimizer_for("priced_gd", model, 1.0), SGD)
    sso = optimizer_for("full_30", model, 4.0)
    assert isinstance(sso, SSO) and (sso.inner_steps, sso.lr) == (30, 4.0)


def test_gradients_of_the_loss_are_what_is_equal() -> None:
    descent, sso = (_trained(Plan(name, 3), 4.0, seed=0) for name in ("full_gd", "full_10"))
    assert descent["targets"] == sso["targets"] == 3
    assert descent["passes"] == 3 * 3 and sso["passes"] > 3 * 10 * 3
    assert descent["price"] == 3 * (PRICES["grads"] + PRICES["output_grads"])
    assert sso["price"] == sso["passes"] + 3 * PRICES["output_grads"]
    assert affordable(3, (4.0,), 1) == int(sso["price"] / 103)


def test_one_plain_inner_step_is_sgd() -> None:
    assert same_step(0) == 0.0


def test_a_unit_descends_with_the_step_size_that_tuning_chose() -> None:
    unit = {"name": "batch_gd", "seed": 0, "targets": 5, "grid": [1e-9, 1.0], "dear": [4.0]}
    found = SSOAgainstDescent().run({**unit, "tuning_seeds": 1})
    assert found["lr"] == 1.0 and found["same_step"] == 0.0
    assert found["curve"][-1] == found["loss"] < found["curve"][0]


def test_a_step_size_that_is_far_too_large_counts_as_worst() -> None:
    found = _trained(Plan("network_gd", 8), 1e12, seed=0)
    assert found["loss"] == WORST


def test_measurements_are_ratios_of_pairs() -> None:
    losses = dict.fromkeys(GRIDS, 4.0) | {"full_10": 1.0, "full_30": 0.5, "priced_gd": 2.0}
    results: Results = []
    for name, loss in losses.items():
        for seed in range(2):
            unit: dict[str, Any] = {"name": name, "seed": seed, "grid": [1.0, 2.0, 4.0]}
            result = {"loss": loss * (1 + seed), "lr": 2.0, "targets": 7, "same_step": 1e-17}
            results.append((unit, {**result, "lr": 4.0 if name == "network_gd" else 2.0}))
    measured = SSOAgainstDescent().measure(results)
    assert measured["loss_ratio_full"].value == pytest.approx(0.25)
    assert measured["inner_ratio"].value == pytest.approx(0.5)
    assert measured["loss_ratio_priced"].value == pytest.approx(0.5)
    assert measured["loss_ratio_network"].value == pytest.approx(1.0)
    assert measured["same_step"].value == 1e-17
    assert measured["lr_at_edge"].value == 1

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from anyorder_studies.chen2023lionk.quadratics import BALLS, random_quadratic
from anyorder_studies.chen2023lionk.study import (
    DECAY,
    NETWORK_DECAYS,
    POINTS,
    LionInABall,
    trained,
    travelled,
    watched,
)
from anyorder_studies.harness import plan
from anyorder_studies.study import Results


def result(**changes: Any) -> dict[str, Any]:
    return {
        "gap": 0.001, "clip_gap": 0.5, "size": 1.0, "entry": 1.0, "rise": -1.0, "h_rises": 0.0,
        "loss_rises": 0.1, "outside": [1.0, 0.1], "levels": [2.0, 1.0], "losses": [2.0, 1.0],
        **changes,
    }  # fmt: skip


def test_every_seed_meets_every_ball_and_every_decay() -> None:
    units = plan(LionInABall(seeds=3), "small")
    assert len(units) == 3 * (len(BALLS) + len(NETWORK_DECAYS))
    assert {u["ball"] for u in units if u["kind"] == "quadratic"} == set(BALLS)


@pytest.mark.parametrize("ball", ["l1", "group"])
def test_the_way_leads_into_the_ball(ball: str) -> None:
    found = travelled(ball, random_quadratic(1, 1 / DECAY), 5_000)
    assert found["gap"] < 0.05 < found["clip_gap"]
    assert found["entry"] <= 1 + 1e-9
    assert found["size"] == pytest.approx(1.0, rel=0.1)
    assert len(found["outside"]) == POINTS
    assert found["outside"][0] > 20 * found["outside"][-1]


@pytest.mark.parametrize("ball", BALLS)
def test_the_loss_rises_where_h_does_not(ball: str) -> None:
    found = watched(ball, random_quadratic(1, 1 / DECAY), 100)
    assert found["rise"] < 0
    assert found["h_rises"] == 0
    assert found["loss_rises"] > 0.01
    assert np.diff(found["levels"]).max() < 0 < np.diff(found["losses"]).max()


def test_networks_are_drawn_into_the_box() -> None:
    found = trained(30.0, 0, 2)
    assert found["start"] > 3.0
    assert found["network"] < found["start"] / 2
    assert 0 <= found["accuracy"] <= 1


def test_measurements_are_means_of_gaps_and_worst_cases_of_steps() -> None:
    results: Results = []
    for seed in range(2):
        for place, ball in enumerate(BALLS):
            unit = {"kind": "quadratic", "ball": ball, "seed": seed}
            results.append(
                (
                    unit,
                    result(
                        gap=0.001 * (place + seed), rise=-1.0 - place - seed, entry=1 - seed / 10
                    ),
                )
            )
        for decay in NETWORK_DECAYS:
            unit = {"kind": "network", "decay": decay, "seed": seed}
            network = {"network": decay / 30 - seed / 10, "start": 2.0, "accuracy": 0.9}
            results.append((unit, network))
    measured = LionInABall().measure(results)
    assert measured["gap_l1"].value == pytest.approx(0.0005)
    assert measured["gap_others"].value == pytest.approx(0.0035)
    assert measured["entry"].value == 1.0
    assert measured["rise"].value == pytest.approx(-1.5)
    assert measured["network"].value == pytest.approx(1.0)
    assert measured["network_30"].value == pytest.approx(0.95)
    assert measured["loss_rises"].value == pytest.approx(0.1)
    assert {c.quantity for c in LionInABall.claims} <= set(measured)

from __future__ import annotations

from typing import Any

import pytest

from anyorder_studies.harness import plan
from anyorder_studies.parimi2025acceleration.study import (
    FORMS,
    PUBLISHED,
    SHOWN,
    STARTS,
    Acceleration,
    ratios,
)
from anyorder_studies.study import Results


def test_every_start_meets_every_condition() -> None:
    units = plan(Acceleration(seeds=3), "small")
    assert len(units) == 1 + 3 * (1 + 5)
    assert STARTS[PUBLISHED] == 3.3 and len(set(STARTS)) == 81


@pytest.mark.parametrize("function", ["quadratic", "ridge"])
def test_a_unit_counts_the_steps_of_all_members(function: str) -> None:
    found = Acceleration().run({"function": function, "condition": 30.0, "seed": 4})
    assert found["steps_heavy_ball"] < found["steps_nesterov"] < found["steps_gradient"]
    assert found["steps_untold"] < found["steps_gradient"]
    assert 0.95 < found["triple_speed"] < 1.1


def test_pieces_show_the_cycle_and_the_others_at_rest() -> None:
    found = Acceleration().run({"function": "pieces"})
    assert found["heavy_ball_factor"] == pytest.approx(1.0, abs=1e-12)
    cycle = sorted(abs(v) / 1225 for v in (792, -2208, 2592))
    assert sorted(found["paths"]["heavy_ball"][-3:]) == pytest.approx(cycle, rel=1e-4)
    assert all(len(path) == SHOWN + 1 for path in found["paths"].values())
    assert 0.0 < found["cycling_share"] < 1.0
    assert found["rest"]["heavy_ball"] > 1.0
    assert all(found["rest"][f] < 1e-9 for f in ("gradient", "nesterov", "triple_momentum"))


def rows(condition: float, seed: int, gradient: int, speed: float) -> tuple[dict[str, Any], Any]:
    steps = {f"steps_{form}": 10 for form in (*FORMS, "untold")}
    result = {**steps, "steps_gradient": gradient, "triple_speed": speed}
    return {"function": "ridge", "condition": condition, "seed": seed}, result


def test_measurements() -> None:
    results: Results = [
        (
            {"function": "pieces"},
            {
                "rest": {"gradient": 1e-9, "nesterov": 3e-9, "triple_momentum": 0.0},
                "heavy_ball_factor": 1.0, "cycling_share": 0.25, "triple_speed": 0.99,
            },
        ),
    ]  # fmt: skip
    for seed in range(2):
        for condition in (10.0, 40.0, 160.0):
            gradient = int(10 * (condition / 10) ** 0.5) * 5
            results.append(rows(condition, seed, gradient, 0.97 if seed else 1.2))
    assert ratios(results) == {10.0: [5, 5], 40.0: [10, 10], 160.0: [20, 20]}
    measured = Acceleration().measure(results)
    assert measured["acceleration"].value == pytest.approx(20.0)
    assert measured["exponent"].value == pytest.approx(0.5)
    assert measured["triple_speed"].value == pytest.approx((0.99 + 0.97) / 2)
    assert measured["largest_rest"].value == 3e-9
    assert measured["cycling_share"].value == 0.25
    assert measured["steps_gradient"].value == 200
    assert measured["steps_untold"].value == 10

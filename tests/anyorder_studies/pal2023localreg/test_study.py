"""The study's measurements follow from its results, whichever way they point."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from anyorder_studies.pal2023localreg.solver import solve
from anyorder_studies.pal2023localreg.study import ARMS, LocalRegStudy, lotka_volterra
from anyorder_studies.study import Verdict, judge


def results(
    unbiased: float, biased: float, accuracy: float, trajectories: float
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Made-up results with given ratios of evaluations and a spread of one percent over seeds."""
    ratios = {
        "digits": {"none": 1.0, "unbiased": unbiased, "biased": biased},
        "trajectories": {"none": 1.0, "unbiased": trajectories, "biased": trajectories},
    }
    made = []
    for problem, by_arm in ratios.items():
        for seed in range(5):
            for arm in ARMS:
                tilt = 1.0 + 0.01 * seed * (arm != "none")
                score = 0.95 if arm == "none" else accuracy + 0.001 * seed
                unit = {"problem": problem, "seed": seed, "arm": arm}
                made.append((unit, {"evaluations": 80 * by_arm[arm] * tilt, "score": score}))
    return made


@pytest.mark.parametrize(
    ("numbers", "verdict"),
    [
        ((0.6, 0.6, 0.95, 0.7), Verdict.REPRODUCED),
        ((0.6, 0.6, 0.95, 1.0), Verdict.PARTLY),
        ((0.6, 0.6, 0.80, 0.7), Verdict.PARTLY),
        ((0.9, 0.6, 0.95, 0.7), Verdict.PARTLY),
        ((0.98, 0.6, 0.95, 0.7), Verdict.NOT_AT_THIS_SCALE),
        ((1.2, 0.6, 0.95, 0.7), Verdict.REFUTED),
    ],
)
def test_verdict_follows_the_counts(numbers: tuple[float, ...], verdict: Verdict):
    measured = LocalRegStudy().measure(results(*numbers))
    assert measured["evaluations_unbiased"].value == pytest.approx(1.02 * numbers[0], rel=1e-2)
    assert judge(LocalRegStudy.claims, measured) is verdict


def test_lotka_volterra_keeps_its_invariant():
    start = torch.tensor([[0.2, 0.4], [0.9, -0.1]], dtype=torch.float64)
    solution = solve(lotka_volterra, start, 0.0, 3.0, rtol=1e-9, atol=1e-9)

    def invariant(u: torch.Tensor) -> torch.Tensor:
        return u[:, 0].exp() - 3.0 * u[:, 0] + u[:, 1].exp() - 1.5 * u[:, 1]

    torch.testing.assert_close(invariant(solution.final), invariant(start), atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("problem", ["digits", "trajectories"])
def test_a_unit_is_deterministic(problem: str):
    study = LocalRegStudy()
    unit = {"problem": problem, "seed": 0, "arm": "biased", "steps": 3}
    one = study.run(unit)
    assert one == study.run(unit)
    assert one["evaluations"] > 8

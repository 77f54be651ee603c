"""The study's measurements follow from its results, whichever way they point."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from anyorder_studies.study import Verdict, judge
from anyorder_studies.wang2024rectified.study import (
    RectifiedDiffusionStudy,
    even_ring,
    ring,
)


def results(one_step: float, flow: float) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Made-up results with the given one-step errors and a spread of one percent over seeds."""
    made = []
    for seed in range(5):
        tilt = 1.0 + 0.01 * seed
        errors = {
            "original": [1.0, 0.8, 0.4, 0.3, 0.2, 0.1],
            "rectified": [one_step * tilt] * 4 + [0.22 * tilt] * 2,
            "flow": [flow] * 6,
            "phased": [0.5] * 6,
        }
        defects = {"original": 0.1, "rectified": 0.01, "flow": 0.01, "phased": 0.05}
        early = {"rectified": 0.5, "flow": 0.6}
        made.append(
            (
                {"seed": seed},
                {"errors": errors, "defects": defects, "floor": 0.05, "early_one_step": early},
            )
        )
    return made


@pytest.mark.parametrize(
    ("one_step", "flow", "verdict"),
    [
        (0.2, 0.5, Verdict.REPRODUCED),
        (0.3, 0.5, Verdict.PARTLY),  # better, but by less than the paper's size
        (1.3, 3.0, Verdict.PARTLY),  # worse than the unchanged model
        (0.3, 0.306, Verdict.NOT_AT_THIS_SCALE),
        (0.3, 0.2, Verdict.REFUTED),  # rectified flow is the central comparison
    ],
)
def test_verdict_follows_the_errors(one_step: float, flow: float, verdict: Verdict):
    measured = RectifiedDiffusionStudy().measure(results(one_step, flow))
    assert measured["one_step_vs_original"].value == pytest.approx(1.02 * one_step, rel=1e-3)
    assert judge(RectifiedDiffusionStudy.claims, measured) is verdict


def test_clouds_are_eight_blobs():
    generator = torch.Generator().manual_seed(0)
    for cloud in (ring(4000, generator), even_ring(4000, generator)):
        radius = cloud.norm(dim=1)
        assert float(radius.mean()) == pytest.approx(1.4, abs=0.02)
        sector = (torch.atan2(cloud[:, 1], cloud[:, 0]) / (torch.pi / 4)).round() % 8
        counts = torch.bincount(sector.long(), minlength=8)
        assert counts.min() > 400
    assert counts.max() - counts.min() <= 2


def test_a_unit_is_deterministic():
    study = RectifiedDiffusionStudy()
    unit = {"seed": 1, "steps": 20, "pairs": 50, "points": 64, "lrs": [1e-30, 1e-3]}
    one, two = study.run(unit), study.run(unit)
    assert one == two
    assert set(one["rates"]) == {"rectified", "flow"}
    assert set(one["errors"]) == {"original", "rectified", "flow", "phased"}

"""The study's measurements follow from its results, whichever way they point."""

from __future__ import annotations

from typing import Any

import pytest

from anyorder_studies.daniel2021localbases.study import LocalBasesStudy
from anyorder_studies.study import Verdict, judge


def results(angle: float, euclidean: float) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Made-up results with the given errors and a spread of one percent over seeds."""
    made = []
    for family in ("a", "b"):
        for seed in range(5):
            for even in (False, True):
                tilt = 1.0 + 0.01 * seed
                errors = {
                    "global": [0.5] * 3,
                    "parameters": [0.45] * 3,
                    "euclidean": [euclidean] * 3,
                    "angle": [angle * tilt] * 3,
                }
                online = {"accuracy": 0.9, "classified_error": angle, "predicted_error": angle}
                made.append(
                    ({"family": family, "seed": seed, "even": even}, {**online, "errors": errors})
                )
    return made


@pytest.mark.parametrize(
    ("angle", "euclidean", "verdict"),
    [
        (0.1, 0.4, Verdict.REPRODUCED),
        (0.38, 0.4, Verdict.PARTLY),
        (0.4, 0.408, Verdict.NOT_AT_THIS_SCALE),
        (0.4, 0.3, Verdict.REFUTED),
    ],
)
def test_verdict_follows_the_errors(angle: float, euclidean: float, verdict: Verdict):
    measured = LocalBasesStudy().measure(results(angle, euclidean))
    assert measured["angle_vs_euclidean"].value == pytest.approx(1.02 * angle / euclidean, rel=1e-2)
    assert judge(LocalBasesStudy.claims, measured) is verdict


def test_a_unit_is_deterministic_and_angle_beats_chance():
    study = LocalBasesStudy()
    unit = {"family": "pulses", "seed": 3, "even": False, "samples": 60, "clusters": 4}
    one, two = study.run(unit), study.run(unit)
    assert one == two
    assert all(0.0 < error < 1.0 for row in one["errors"].values() for error in row)
    assert one["errors"]["angle"][0] > one["errors"]["angle"][2]


def test_units_cover_families_seeds_and_control():
    units = list(LocalBasesStudy(seeds=3).runs("small"))
    assert len(units) == 5 * 3 * 2

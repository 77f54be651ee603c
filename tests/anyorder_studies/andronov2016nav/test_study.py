from __future__ import annotations

import pytest

from anyorder_studies.andronov2016nav.study import DATA, STARS, NavLightCurves
from anyorder_studies.data import missing_data
from anyorder_studies.harness import plan

REASON = missing_data([DATA])


def test_every_scale_pairs_each_curve_with_each_seed() -> None:
    units = plan(NavLightCurves(seeds=3), "small")
    assert len(units) == 15
    assert {unit["curve"] for unit in units} == {"asas_sn", "tess", "narrow", "total", "wide"}


def test_a_simulated_unit_compares_both_models_with_the_truth() -> None:
    unit = {"curve": "narrow", "seed": 0, "observations": 400, "noise": 0.01}
    result = NavLightCurves().run(unit)
    assert result["parameters_nav"] == 11
    assert result["parameters_trig"] > 40
    assert 0 < result["error_nav"] < result["error_trig"] < 0.02
    assert result["half_width"] == pytest.approx(STARS["narrow"].half_width, rel=0.15)


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_a_real_unit_predicts_what_it_has_not_seen() -> None:
    result = NavLightCurves().run({"curve": "asas_sn", "seed": 0})
    assert result["parameters_nav"] == 11
    assert result["parameters_trig"] > 44
    assert len(result["phase"]) == 322  # a fifth of 1,612 observations
    assert 1.5 < result["held_out_nav"] < 3.0
    assert result["half_width"] == pytest.approx(0.035, abs=0.001)

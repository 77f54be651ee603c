from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from anyorder_studies.andronov2016nav.lightcurves import (
    LightCurve,
    LightCurveError,
    TwoDiscs,
    overlap,
)


def test_overlap_is_the_area_of_sampled_points() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (400_000, 2))
    for distance, first, second in ((0.5, 0.4, 0.3), (0.2, 0.4, 0.3), (0.65, 0.5, 0.2)):
        inside = np.hypot(*points.T) < first
        inside &= np.hypot(points[:, 0] - distance, points[:, 1]) < second
        found = float(overlap(np.array([distance]), first, second)[0])
        assert found == pytest.approx(4 * inside.mean(), abs=3e-3)


def test_overlap_at_its_limits() -> None:
    distances = np.array([0.0, 0.1, 0.7, 0.9])
    areas = overlap(distances, 0.4, 0.3)
    assert areas[:2] == pytest.approx(math.pi * 0.09)
    assert areas[2:] == pytest.approx(0.0, abs=1e-9)
    assert overlap(distances, 0.3, 0.4) == pytest.approx(areas)
    assert overlap(np.array([0.0]), 0.3, 0.3) == pytest.approx(math.pi * 0.09)


def test_near_contact_the_overlap_grows_with_the_power_three_halves() -> None:
    steps = np.array([1e-4, 1e-5])
    areas = overlap(0.5 - steps, 0.3, 0.2)
    assert math.log10(areas[0] / areas[1]) == pytest.approx(1.5, abs=1e-3)


def test_eclipse_depths_are_the_hidden_light() -> None:
    stars = TwoDiscs(first=0.2, second=0.1, brightness=0.5)
    whole = 0.04 + 0.5 * 0.01
    # The small star hides a quarter of the large one at phase 0, and vanishes at phase 1/2.
    depths = stars.magnitude(np.array([0.0, 0.5, 0.25]))
    assert depths[0] == pytest.approx(-2.5 * math.log10((0.03 + 0.005) / whole))
    assert depths[1] == pytest.approx(-2.5 * math.log10(0.04 / whole))
    assert depths[2] == pytest.approx(0.0)


def test_eclipses_begin_at_the_half_width() -> None:
    for inclination in (90.0, 85.0):
        stars = TwoDiscs(first=0.2, second=0.15, brightness=0.5, inclination=inclination)
        near = stars.half_width + np.array([-1e-3, 1e-3])
        inside, outside = stars.magnitude(near)
        assert inside > 0
        assert outside == pytest.approx(0.0, abs=1e-12)


def test_limb_darkening_deepens_the_middle_and_keeps_total_eclipses() -> None:
    plain = TwoDiscs(first=0.2, second=0.1, brightness=0.5)
    dark = TwoDiscs(first=0.2, second=0.1, brightness=0.5, limb=0.6)
    assert dark.magnitude(np.array([0.0]))[0] > plain.magnitude(np.array([0.0]))[0] + 0.05
    # All light of the small star is gone in either case, and its share does not change.
    middle = np.array([0.5])
    assert dark.magnitude(middle) == pytest.approx(plain.magnitude(middle), abs=1e-6)
    # Total light of a darkened disc: 1 - limb / 3 of a uniform one.
    light = float(dark._light(1.0, lambda r: np.asarray(math.pi * r**2)))
    assert light == pytest.approx(math.pi * (1 - 0.6 / 3), rel=2e-3)


def test_observations_are_a_function_of_the_seed() -> None:
    stars = TwoDiscs(0.2, 0.1, 0.5)
    one, same, other = (stars.observe(50, 0.01, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.magnitude, same.magnitude)
    assert not np.array_equal(one.phase, other.phase)
    assert np.std(one.magnitude - stars.magnitude(one.phase)) == pytest.approx(0.01, rel=0.3)


def test_fluxes_become_magnitudes(tmp_path: Path) -> None:
    (tmp_path / "star.csv").write_text("phase,flux,flux_err\n0.1,1.0,0.01\n0.2,0.1,0.001\n")
    curve = LightCurve.read(tmp_path / "star.csv")
    assert curve.magnitude == pytest.approx([0.0, 2.5])
    assert curve.error == pytest.approx([0.010857, 0.010857], rel=1e-4)
    assert len(curve.pick(np.array([True, False]))) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,flux,flux_err\n0.1,1.0,0.01\n", "got 'time,flux,flux_err'"),
        ("phase,flux,flux_err\n0.1,one,0.01\n", "CSV file of numbers"),
        ("phase,flux,flux_err\n0.1,-1.0,0.01\n", "positive fluxes"),
        ("phase,flux,flux_err\n0.1,1.0,0.0\n", "positive errors"),
        ("phase,flux,flux_err\n0.1,nan,0.1\n", "finite numbers"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "star.csv").write_text(text)
    with pytest.raises(LightCurveError, match=message):
        LightCurve.read(tmp_path / "star.csv")
    with pytest.raises(LightCurveError, match="CSV file"):
        LightCurve.read(tmp_path / "none.csv")


def test_shapes_must_agree() -> None:
    with pytest.raises(LightCurveError, match="one length"):
        LightCurve(np.zeros(3), np.zeros(2), np.ones(3))

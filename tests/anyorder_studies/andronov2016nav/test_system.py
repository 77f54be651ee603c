from __future__ import annotations

import math

import numpy as np
import pytest

from anyorder_studies.andronov2016nav.lightcurves import LightCurve, LightCurveError, TwoDiscs
from anyorder_studies.andronov2016nav.system import (
    NAVModel,
    best_trig_order,
    eclipse_profile,
    fit_trig,
    nav_basis,
    trig_basis,
)

TRUE = {
    "C1": 10.0, "C2": 0.02, "C3": -0.01, "C4": 0.03, "C5": 0.005, "C6": 0.8, "C7": 0.3,
    "half_width": 0.06, "beta1": 1.3, "beta2": 2.2, "primary": 0.31,
}  # fmt: skip


def naive_nav(phase: float, c: dict[str, float]) -> float:
    """The formula of the model, term by term, for one phase."""

    def profile(z: float, beta: float) -> float:
        return (1 - abs(z) ** beta) ** 1.5 if abs(z) < 1 else 0.0

    p = phase - c["primary"]
    near = p - round(p)
    far = (p - 0.5) - round(p - 0.5)
    angle = 2 * math.pi * p
    return (
        c["C1"]
        + c["C2"] * math.cos(angle) + c["C3"] * math.sin(angle)
        + c["C4"] * math.cos(2 * angle) + c["C5"] * math.sin(2 * angle)
        + c["C6"] * profile(near / c["half_width"], c["beta1"])
        + c["C7"] * profile(far / c["half_width"], c["beta2"])
    )  # fmt: skip


def nav_curve(number: int = 400, noise: float = 0.0, seed: int = 0) -> LightCurve:
    rng = np.random.default_rng(seed)
    phase = np.sort(rng.random(number))
    magnitude = np.array([naive_nav(p, TRUE) for p in phase]) + noise * rng.standard_normal(number)
    return LightCurve(phase, magnitude, np.full(number, max(noise, 1e-3)))


def test_the_profile_is_its_formula() -> None:
    assert eclipse_profile(np.array([0.0, 0.5, -0.5, 1.0, 2.0]), 2.0) == pytest.approx(
        [1.0, 0.75**1.5, 0.75**1.5, 0.0, 0.0]
    )


def test_the_basis_is_the_naive_model() -> None:
    phases = np.linspace(-1.0, 2.0, 301)
    linear = np.array([TRUE[f"C{k}"] for k in range(1, 8)])
    found = nav_basis(phases - TRUE["primary"], 0.06, 1.3, 2.2) @ linear
    assert found == pytest.approx([naive_nav(p, TRUE) for p in phases], abs=1e-12)


def test_exact_data_give_the_parameters_back() -> None:
    fit = NAVModel().fit(nav_curve())
    assert fit.m == 11
    for name, value in TRUE.items():
        assert fit.parameters[name] == pytest.approx(value, abs=2e-4), name
    phases = np.linspace(0, 1, 50)
    assert fit.predict(phases) == pytest.approx([naive_nav(p, TRUE) for p in phases], abs=1e-4)


def test_standard_errors_are_those_of_repeated_observations() -> None:
    fits = [NAVModel().fit(nav_curve(300, 0.01, seed)) for seed in range(30)]
    for name in ("C1", "C6", "half_width", "beta1", "primary"):
        scatter = float(np.std([fit.parameters[name] for fit in fits], ddof=1))
        stated = float(np.mean([fit.standard_errors[name] for fit in fits]))
        # With 30 repetitions the scatter itself is known to about 13 %.
        assert 0.6 < stated / scatter < 1.6, name
    errors = [fit.predict(np.linspace(0, 1, 500)) for fit in fits]
    truth = np.array([naive_nav(p, TRUE) for p in np.linspace(0, 1, 500)])
    actual = math.sqrt(float(np.mean((np.array(errors) - truth) ** 2)))
    assert 0.7 < np.mean([fit.accuracy for fit in fits]) / actual < 1.4


def test_period_and_epoch_can_be_fitted_from_times() -> None:
    curve = nav_curve(500, 0.002, 3)
    cycles = np.random.default_rng(4).integers(0, 60, len(curve))
    times = LightCurve(2.5 * (curve.phase + cycles), curve.magnitude, curve.error)
    fit = NAVModel(refine_period=True).fit(times, period=2.5003)
    assert fit.m == 12
    assert fit.parameters["period"] == pytest.approx(2.5, abs=4 * fit.standard_errors["period"])
    assert fit.standard_errors["period"] < 1e-4
    epoch = fit.parameters["primary"] / fit.parameters["period"]
    assert (epoch - TRUE["primary"] + 0.5) % 1.0 - 0.5 == pytest.approx(0.0, abs=1e-3)
    assert fit.sigma == pytest.approx(1.0, abs=0.15)


def test_a_known_epoch_saves_the_search() -> None:
    fit = NAVModel().fit(nav_curve(), primary=0.3)
    assert fit.parameters["primary"] == pytest.approx(TRUE["primary"], abs=1e-4)


def test_the_primary_is_the_deeper_eclipse() -> None:
    curve = TwoDiscs(0.2, 0.18, 0.3, inclination=86.0).observe(500, 0.005, 0)
    fit = NAVModel().fit(curve)
    assert min(fit.parameters["primary"] % 1, 1 - fit.parameters["primary"] % 1) < 0.01
    assert fit.parameters["C6"] > fit.parameters["C7"] > 0


def test_trigonometric_fits_are_those_of_numpy() -> None:
    curve = nav_curve(200, 0.01, 1)
    fit = fit_trig(curve, 3)
    columns = trig_basis(curve.phase, 3)
    expected, rest = np.linalg.lstsq(columns, curve.magnitude, rcond=None)[:2]
    assert list(fit.parameters.values()) == pytest.approx(expected.tolist())
    assert list(fit.parameters)[:3] == ["C1", "cos1", "sin1"]
    variance = rest[0] / (200 - 7)
    errors = np.sqrt(np.diag(np.linalg.inv(columns.T @ columns)) * variance)
    assert list(fit.standard_errors.values()) == pytest.approx(errors.tolist())
    # For linear least squares with equal errors the mean accuracy is s sqrt(m / n).
    assert fit.accuracy == pytest.approx(math.sqrt(variance * 7 / 200))


def test_the_order_is_that_of_fitting_every_order() -> None:
    curve = TwoDiscs(0.25, 0.2, 0.6, inclination=85.0).observe(300, 0.01, 2)
    fits = [fit_trig(curve, order) for order in range(41)]
    assert best_trig_order(curve, 40)[0] == int(np.argmin([fit.bic for fit in fits]))
    aic = [fit.bic + fit.m * (2 - math.log(300)) for fit in fits]
    assert best_trig_order(curve, 40, "aic")[0] == int(np.argmin(aic))


def test_a_polynomial_of_known_order_is_found() -> None:
    rng = np.random.default_rng(0)
    phase = rng.random(300)
    magnitude = trig_basis(phase, 4) @ np.array([1, 0.3, 0, 0, 0.2, 0, 0, 0.1, 0.1])
    curve = LightCurve(phase, magnitude + 0.01 * rng.standard_normal(300), np.full(300, 0.01))
    assert best_trig_order(curve)[0] == 4


def test_bad_requests_are_refused() -> None:
    curve = nav_curve(30)
    with pytest.raises(LightCurveError, match="order >= 0"):
        fit_trig(curve, -1)
    with pytest.raises(LightCurveError, match="more observations than the 31 parameters, got 30"):
        fit_trig(curve, 15)
    with pytest.raises(LightCurveError, match="'bic' or 'aic', got 'cv'"):
        best_trig_order(curve, criterion="cv")
    with pytest.raises(LightCurveError, match="2 distinct phases"):
        best_trig_order(LightCurve(np.zeros(5), np.ones(5), np.ones(5)))
    with pytest.raises(LightCurveError, match="positive period"):
        NAVModel().fit(curve, period=0.0)
    with pytest.raises(LightCurveError, match="at least 20 observations, got 10"):
        NAVModel().fit(nav_curve(10))


def test_what_has_no_primary_minimum_is_refused() -> None:
    with pytest.raises(LightCurveError, match="the one half a period later is deeper"):
        NAVModel().fit(nav_curve(), primary=TRUE["primary"] + 0.5)
    peak = nav_curve(200)
    spike = 5.0 - np.exp(-((((peak.phase - 0.4 + 0.25) % 0.5 - 0.25) / 0.02) ** 2))
    with pytest.raises(LightCurveError, match="found no dip"):
        NAVModel().fit(LightCurve(peak.phase, spike, peak.error), primary=0.4)
    curve = nav_curve(30)
    with pytest.raises(LightCurveError, match="the same one everywhere"):
        NAVModel().fit(LightCurve(curve.phase, np.full(30, 5.0), curve.error))

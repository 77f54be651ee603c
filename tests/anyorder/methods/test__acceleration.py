"""The accelerated family in numbers: published values, spectral radii, what certificates say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from anyorder.methods._acceleration import FORMS, SCOPES, Certificate, Constants, Form, constants

LINEAR: list[Form] = ["gradient", "heavy_ball", "nesterov", "triple_momentum"]


# Constants -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("gradient", (1 / 13, 0, 0, 0, 12 / 13)),
        ("heavy_ball", (1 / 9, 4 / 9, 0, 0, 2 / 3)),  # as in Lessard et al., appendix B
        ("nesterov", (1 / 25, 2 / 3, 2 / 3, 0, math.sqrt(4 / 5))),
        ("triple_momentum", (9 / 125, 8 / 15, 8 / 27, 16 / 9, 4 / 5)),
    ],
)
def test_values_for_a_condition_of_25(form: Form, expected: tuple[float, ...]) -> None:
    """With q = 1/5 all of them are fractions that can be worked out on paper."""
    assert constants(form, 1.0, 25.0) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("form", LINEAR)
@pytest.mark.parametrize("condition", [1.5, 25.0, 1e4])
def test_only_alpha_depends_on_the_scale(form: Form, condition: float) -> None:
    one, other = constants(form, 1.0, condition), constants(form, 8.0, 8.0 * condition)
    assert other.alpha == pytest.approx(one.alpha / 8, rel=1e-12)
    assert other[1:] == pytest.approx(one[1:], rel=1e-9)


@pytest.mark.parametrize("form", LINEAR)
def test_equal_curvatures_are_solved_in_one_step(form: Form) -> None:
    assert constants(form, 3.0, 3.0) == pytest.approx((1 / 3, 0, 0, 0, 0), abs=1e-15)


def radius(c: Constants, curvature: float) -> float:
    """Largest eigenvalue of the recursion of (xi_k, xi_{k-1}) on a parabola."""
    bend = c.alpha * curvature
    matrix = [[1 + c.beta - bend * (1 + c.gamma), -c.beta + bend * c.gamma], [1.0, 0.0]]
    return float(max(abs(np.linalg.eigvals(matrix))))


@pytest.mark.parametrize("form", LINEAR)
@pytest.mark.parametrize("condition", [2.0, 25.0, 1e3])
def test_rates_on_quadratics(form: Form, condition: float) -> None:
    """The slowest curvature gives the rate itself; Nesterov's promise is for more than quadratics.

    On quadratics Nesterov's factor is 1 - q, below the promised root of it.
    """
    c = constants(form, 1.0, condition)
    worst = max(radius(c, v) for v in np.geomspace(1.0, condition, 501))
    exact = 1 - condition**-0.5 if form == "nesterov" else c.rate
    assert worst == pytest.approx(exact, rel=1e-6)  # double roots: the square root of rounding
    assert worst <= c.rate * (1 + 1e-6)


def test_faster_the_more_is_promised() -> None:
    rates = {form: constants(form, 1.0, 100.0).rate for form in LINEAR}
    assert rates["heavy_ball"] < rates["triple_momentum"] < rates["nesterov"] < rates["gradient"]


def test_every_form_has_a_scope_and_constants() -> None:
    assert set(SCOPES) == set(FORMS)
    assert constants("nesterov_convex", 1.0, 4.0) == (0.25, 0, 0, 0, 1)


# Certificates ----------------------------------------------------------------------------------


def test_certificate_in_words() -> None:
    text = str(Certificate("nesterov", 1.0, 25.0, True, 80, 0.9, None, 0.81))
    assert text.splitlines() == [
        "nesterov with mu = 1, L = 25 (proved)",
        "for strongly convex, smooth functions",
        "factor per step: promised 0.9, measured 0.81",
        "speed: 2.000 of the promise",
    ]


def test_certificate_of_the_convex_form_bounds_the_gap() -> None:
    text = str(Certificate("nesterov_convex", None, 2.0, False, 9, None, 0.04, None))
    assert "mu = none, L = 2 (not proved for these settings)" in text
    assert "gap after 9 steps: at most 0.04 |x_0 - x*|^2" in text
    assert "speed" not in text


@pytest.mark.parametrize(
    ("rate", "measured", "speed"),
    [(0.5, 0.25, 2.0), (0.25, 0.5, 0.5), (0.5, 1.0, 0.0), (0.5, 0.0, math.inf)],
)
def test_speed_compares_digits_per_step(rate: float, measured: float, speed: float) -> None:
    found = Certificate("gradient", 1.0, 2.0, True, 9, rate, None, measured).speed
    assert found == pytest.approx(speed)


@pytest.mark.parametrize(("rate", "measured"), [(None, 0.5), (0.5, None), (0.0, 0.0)])
def test_no_speed_without_both_rates(rate: float | None, measured: float | None) -> None:
    assert Certificate("gradient", 1.0, 2.0, True, 9, rate, None, measured).speed is None

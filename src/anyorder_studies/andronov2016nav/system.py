r"""Fit light curves of eclipsing binaries with NAV, and with trigonometric polynomials.

The NAV model of a light curve, in magnitudes over the phase :math:`\varphi` of the eclipse, is

.. math::
    x(\varphi) = C_1 + C_2 \cos 2\pi\varphi + C_3 \sin 2\pi\varphi + C_4 \cos 4\pi\varphi
    + C_5 \sin 4\pi\varphi + C_6 H(\varphi / C_8; \beta_1)
    + C_7 H((\varphi - \tfrac12) / C_8; \beta_2),
    \qquad H(z; \beta) = (1 - |z|^\beta)^{3/2} \text{ for } |z| < 1 \text{, else } 0.

For a fixed half-width :math:`C_8`, shapes :math:`\beta`, phase of the primary minimum and, if it is
fitted, period, the other seven coefficients are linear. The nonlinear ones are fitted with a grid
search and then by least squares on the residuals of the linear fit (variable projection).

References:
    Andronov, Tkachenko, Chinarova (2016), arXiv:1602.04179; Andronov (2012), arXiv:1208.3655.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from typing import Any

import numpy as np

from anyorder_studies.andronov2016nav.lightcurves import Array, LightCurve, LightCurveError

WIDTHS = (0.02, 0.03, 0.045, 0.065, 0.09, 0.12, 0.16, 0.21)
SHAPES = (0.7, 1.0, 1.5, 2.5, 5.0)
# Limits of half-width and shapes during the fit: wider eclipses would overlap.
WIDTH_LIMITS = (0.003, 0.25)
SHAPE_LIMITS = (0.3, 20.0)


def eclipse_profile(z: Array, beta: float) -> Array:
    r"""Shape of an eclipse, :math:`(1 - |z|^\beta)^{3/2}` inside, 0 outside.

    Args:
        z: Phase relative to mid-eclipse, in half-widths.
        beta: Shape: 1 is pointed, 2 is round, large values are flat.

    Returns:
        Values from 0 (outside) to 1 (mid-eclipse), with the shape of ``z``. Near the edge the
        profile grows with the power 3/2 of the distance to it, like the overlap area of two discs.
    """
    return np.clip(1.0 - np.abs(z) ** beta, 0.0, None) ** 1.5


def trig_basis(phase: Array, order: int) -> Array:
    """Columns 1, cos, sin, ... of a trigonometric polynomial, shape (n, 2 order + 1)."""
    angles = 2.0 * math.pi * np.outer(phase, np.arange(1, order + 1))
    columns = np.empty((phase.size, 2 * order + 1))
    columns[:, 0] = 1.0
    columns[:, 1::2], columns[:, 2::2] = np.cos(angles), np.sin(angles)
    return columns


def nav_basis(phase: Array, width: float, beta1: float, beta2: float) -> Array:
    """The seven linear columns of NAV, shape (n, 7); phase 0 is the primary minimum."""
    centred = (phase + 0.5) % 1.0 - 0.5
    opposite = phase % 1.0 - 0.5
    dips = (eclipse_profile(centred / width, beta1), eclipse_profile(opposite / width, beta2))
    return np.column_stack([trig_basis(phase, 2), *dips])


@dataclass(frozen=True)
class Fit:
    """A fitted model of a light curve.

    Args:
        parameters: Values by name, linear ones first.
        standard_errors: Their standard errors, scaled by the scatter of the residuals.
        n: Number of observations.
        sigma: Weighted root mean square residual with n - m degrees of freedom; 1 if the errors
            explain the scatter.
        accuracy: Root mean square standard error of the smoothing curve over the observations,
            in magnitudes; for a linear least-squares fit with equal errors it is the scatter of
            one observation times ``sqrt(m / n)``.
        bic: Bayesian information criterion, up to a constant that depends on the data only.
        model: Maps phases (or times) to magnitudes.
    """

    parameters: dict[str, float]
    standard_errors: dict[str, float]
    n: int
    sigma: float
    accuracy: float
    bic: float
    model: Callable[[Array], Array]

    @property
    def m(self) -> int:
        """Number of fitted parameters."""
        return len(self.parameters)

    def predict(self, phase: Array) -> Array:
        """Magnitudes of the smoothing curve at phases (or times)."""
        return self.model(np.asarray(phase, np.float64))


def fit_trig(curve: LightCurve, order: int) -> Fit:
    """Fit a trigonometric polynomial by weighted least squares.

    Args:
        curve: The light curve over phase.
        order: Highest harmonic, at least 0; the fit has ``2 order + 1`` parameters.

    Raises:
        LightCurveError: If there are not more observations than parameters.
    """
    if order < 0:
        raise LightCurveError(f"expected an order >= 0, got {order}")
    columns = trig_basis(curve.phase, order)
    coefficients = _solve(columns, curve)[0]
    names = ["C1", *(f"{f}{k}" for k in range(1, order + 1) for f in ("cos", "sin"))]
    return _finish(
        curve, names, coefficients, columns, lambda phase: trig_basis(phase, order) @ coefficients
    )


def best_trig_order(
    curve: LightCurve, largest: int = 60, criterion: str = "bic"
) -> tuple[int, Fit]:
    """Choose the order of a trigonometric polynomial by an information criterion.

    All orders share one QR factorisation, since their columns are nested.

    Args:
        curve: The light curve over phase.
        largest: Maximum order; orders that leave no degrees of freedom are skipped.
        criterion: ``"bic"`` or ``"aic"``.

    Returns:
        The chosen order and its fit.

    Raises:
        LightCurveError: If the criterion is unknown or there are fewer than 2 distinct phases.
    """
    if criterion not in ("bic", "aic"):
        raise LightCurveError(f"expected criterion 'bic' or 'aic', got {criterion!r}")
    distinct = np.unique(curve.phase % 1.0).size
    largest = min(largest, (distinct - 2) // 2)
    if largest < 0:
        raise LightCurveError(
            f"expected a largest order >= 0 and 2 distinct phases, got {largest} and {distinct}"
        )
    weighted = trig_basis(curve.phase, largest) / curve.error[:, None]
    target = curve.magnitude / curve.error
    gains = (np.linalg.qr(weighted)[0].T @ target) ** 2
    n, m = len(curve), 2 * np.arange(largest + 1) + 1
    chi2 = np.maximum(float(target @ target) - np.cumsum(gains)[::2], np.finfo(float).tiny)
    price = math.log(n) if criterion == "bic" else 2.0
    order = int(np.argmin(n * np.log(chi2 / n) + price * m))
    return order, fit_trig(curve, order)


class NAVModel:
    """The NAV model, fitted to phases or to times.

    Args:
        refine_period: Also fit the period (12 parameters instead of 11).

    Example:
        >>> from anyorder_studies.andronov2016nav.lightcurves import TwoDiscs
        >>> stars = TwoDiscs(first=0.2, second=0.15, brightness=0.4)
        >>> fit = NAVModel().fit(stars.observe(400, noise=0.005, seed=1))
        >>> abs(fit.parameters["half_width"] - stars.half_width) < 0.005
        True
    """

    def __init__(self, *, refine_period: bool = False) -> None:
        self.refine_period = refine_period

    def fit(
        self,
        curve: LightCurve,
        *,
        period: float = 1.0,
        primary: float | None = None,
    ) -> Fit:
        """Fit the model.

        Args:
            curve: The light curve over phase, or over time together with ``period``.
            period: Period in the unit of ``curve.phase``; 1 for phases.
            primary: Phase or time near a primary minimum (default: determined by a search).

        Returns:
            The fit, with parameters C1..C7, ``half_width`` (C8, in periods), ``beta1``, ``beta2``,
            ``primary`` (phase or time of a primary minimum: the first from 0 on, or the one nearest
            to the mean time when the period is fitted too) and, if fitted, ``period``. The depths
            C6 and C7 are in magnitudes.

        Raises:
            LightCurveError: If the period is not positive, there are fewer than 20 observations,
                they are constant, there is no dip, or ``primary`` is not the deeper minimum.
        """
        if not (math.isfinite(period) and period > 0):
            raise LightCurveError(f"expected a positive period, got {period}")
        if len(curve) < 20:
            raise LightCurveError(f"expected at least 20 observations, got {len(curve)}")
        if float(np.ptp(curve.magnitude)) == 0.0:
            raise LightCurveError("expected magnitudes that vary, got the same one everywhere")
        # Relative to the mean time, period and epoch are almost uncorrelated.
        middle = float(curve.phase.mean()) if self.refine_period else 0.0
        start = self._grid(curve, period, primary, middle)
        theta = self._refine(curve, start, period, middle)
        coefficients = _solve(self._columns(curve.phase, theta, period, middle), curve)[0]
        theta = self._ordered(theta, coefficients, searched=primary is None)
        coefficients = _solve(self._columns(curve.phase, theta, period, middle), curve)[0]
        return self._describe(curve, theta, coefficients, period, middle)

    def _ordered(self, theta: Array, coefficients: Array, *, searched: bool) -> Array:
        """Make the deeper minimum the primary one, at its first occurrence."""
        if max(coefficients[5:]) <= 0:
            raise LightCurveError("found no dip that repeats with the period: check the period")
        if coefficients[6] > coefficients[5]:
            if not searched:
                raise LightCurveError(
                    "expected the deeper minimum at `primary`, but the one half a period later is "
                    "deeper: move it by half a period, or leave it out to search for it"
                )
            theta = theta[[0, 2, 1, *range(3, theta.size)]]
            theta[3] += 0.5
        # From phase 0 on, or nearest to the mean time, which is the reference of the period.
        theta[3] = (theta[3] + 0.5) % 1.0 - 0.5 if self.refine_period else theta[3] % 1.0
        return theta

    def _columns(self, time: Array, theta: Array, period: float, middle: float) -> Array:
        width, beta1, beta2, shift = theta[:4]
        rate = period * theta[4] if self.refine_period else period
        return nav_basis((time - middle) / rate - shift, width, beta1, beta2)

    def _grid(
        self, curve: LightCurve, period: float, primary: float | None, middle: float
    ) -> Array:
        """Best initial widths, shapes and, if unknown, phase of the primary minimum."""
        if primary is None:
            shifts = np.arange(0.0, 1.0, 0.5 * WIDTHS[0])
        else:
            shifts = np.array([(primary - middle) / period])
        scale = [1.0] if self.refine_period else []

        def left_over(shift: float, width: float, beta1: float, beta2: float) -> float:
            theta = np.array([width, beta1, beta2, shift, *scale])
            rest = _solve(self._columns(curve.phase, theta, period, middle), curve)[1]
            return float(rest @ rest)

        coarse = [(left_over(s, w, 1.5, 1.5), s) for s in shifts for w in WIDTHS[1::2]]
        shift = min(coarse)[1]
        found = min(
            (left_over(shift, w, b1, b2), w, b1, b2)
            for w, b1, b2 in product(WIDTHS, SHAPES, SHAPES)
        )
        return np.array([*found[1:], shift, *scale])

    def _refine(self, curve: LightCurve, start: Array, period: float, middle: float) -> Array:
        """Least squares in the nonlinear parameters on the residuals of the linear fit."""
        least_squares: Any = import_module("scipy.optimize").least_squares

        def rest(theta: Array) -> Array:
            return _solve(self._columns(curve.phase, theta, period, middle), curve)[1]

        low = [WIDTH_LIMITS[0], SHAPE_LIMITS[0], SHAPE_LIMITS[0], start[3] - 0.1]
        high = [WIDTH_LIMITS[1], SHAPE_LIMITS[1], SHAPE_LIMITS[1], start[3] + 0.1]
        if self.refine_period:
            low, high = [*low, 0.99], [*high, 1.01]
        solution = least_squares(rest, start, bounds=(low, high), x_scale=0.1 * start + 0.01)
        return np.asarray(solution.x, np.float64)

    def _describe(
        self, curve: LightCurve, theta: Array, coefficients: Array, period: float, middle: float
    ) -> Fit:
        """Name the parameters and attach errors from the full Jacobian."""

        def model(time: Array, nonlinear: Array = theta) -> Array:
            return self._columns(time, nonlinear, period, middle) @ coefficients

        slopes: list[Array] = []
        for place, step in enumerate(np.maximum(1e-6, 1e-5 * np.abs(theta))):
            ahead, back = theta.copy(), theta.copy()
            ahead[place] += step
            back[place] -= step
            slopes.append((model(curve.phase, ahead) - model(curve.phase, back)) / (2 * step))
        columns = self._columns(curve.phase, theta, period, middle)
        jacobian = np.column_stack([columns, *slopes])
        rate = period * theta[4] if self.refine_period else period
        values = [*coefficients, *theta[:3], middle + rate * theta[3]]
        # Convert phase shift and relative period to the units of the data.
        jacobian[:, 10] /= rate
        if self.refine_period:
            values.append(rate)
            jacobian[:, 11] /= period
        names = [*(f"C{k}" for k in range(1, 8)), "half_width", "beta1", "beta2", "primary"]
        names += ["period"] if self.refine_period else []
        return _finish(curve, names, np.array(values), jacobian, model)


def _solve(columns: Array, curve: LightCurve) -> tuple[Array, Array]:
    """Weighted least squares: coefficients, and residuals in units of the errors."""
    if columns.shape[1] >= len(curve):
        raise LightCurveError(
            f"expected more observations than the {columns.shape[1]} parameters, got {len(curve)}"
        )
    weighted = columns / curve.error[:, None]
    target = curve.magnitude / curve.error
    coefficients = np.asarray(np.linalg.lstsq(weighted, target, rcond=None)[0], np.float64)
    return coefficients, target - weighted @ coefficients


def _finish(
    curve: LightCurve,
    names: list[str],
    values: Array,
    jacobian: Array,
    model: Callable[[Array], Array],
) -> Fit:
    """Compute scatter, errors and criteria from a solution and its Jacobian."""
    n, m = len(curve), len(names)
    rest = (curve.magnitude - model(curve.phase)) / curve.error
    chi2 = float(rest @ rest)
    sigma = math.sqrt(chi2 / (n - m))
    covariance = sigma**2 * np.linalg.pinv(
        (jacobian / curve.error[:, None]).T @ (jacobian / curve.error[:, None])
    )
    variances = np.einsum("ij,jk,ik->i", jacobian, covariance, jacobian)
    errors = np.sqrt(np.clip(np.diag(covariance), 0.0, None))
    return Fit(
        parameters=dict(zip(names, map(float, values), strict=True)),
        standard_errors=dict(zip(names, map(float, errors), strict=True)),
        n=n,
        sigma=sigma,
        accuracy=math.sqrt(float(variances.mean())),
        bic=n * math.log(chi2 / n) + m * math.log(n),
        model=model,
    )

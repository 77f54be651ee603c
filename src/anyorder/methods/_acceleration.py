"""The accelerated methods: constants, theoretical rates, and the certificate of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Form = Literal["gradient", "heavy_ball", "nesterov", "nesterov_convex", "triple_momentum"]
FORMS: tuple[Form, ...] = get_args(Form)
#: Functions for which the rate of a form is proved.
SCOPES: Mapping[Form, str] = {
    "gradient": "strongly convex, smooth functions",
    "heavy_ball": "quadratics only; on other strongly convex functions it may cycle forever",
    "nesterov": "strongly convex, smooth functions",
    "nesterov_convex": "convex, smooth functions",
    "triple_momentum": "strongly convex, smooth functions",
}


class Constants(NamedTuple):
    """The constants of a method of the family, and its rate: the factor on the error per step."""

    alpha: float
    beta: float
    gamma: float
    delta: float
    rate: float


def constants(form: Form, mu: float, smooth: float) -> Constants:
    """The constants of a form.

    Args:
        form: the method; for ``nesterov_convex``, beta and gamma change at each step.
        mu: strong convexity, the smallest curvature.
        smooth: L, the largest curvature, at least ``mu``.
    """
    q = math.sqrt(mu / smooth)
    r = 1.0 - q
    if form == "gradient":
        return Constants(2.0 / (smooth + mu), 0.0, 0.0, 0.0, (smooth - mu) / (smooth + mu))
    if form == "heavy_ball":
        alpha = 4.0 / (math.sqrt(smooth) + math.sqrt(mu)) ** 2
        return Constants(alpha, (r / (1.0 + q)) ** 2, 0.0, 0.0, r / (1.0 + q))
    if form == "nesterov":
        return Constants(1.0 / smooth, r / (1.0 + q), r / (1.0 + q), 0.0, math.sqrt(r))
    if form == "triple_momentum":
        gamma = r * r / ((1.0 + r) * (2.0 - r))
        delta = r * r / (1.0 - r * r)
        return Constants((1.0 + r) / smooth, r * r / (2.0 - r), gamma, delta, r)
    return Constants(1.0 / smooth, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Certificate:
    """The theoretical and the measured rate of a run. Print it to read it.

    Attributes:
        form: the method.
        mu: strong convexity; ``None`` if it is unknown or not used.
        smooth: L; ``None`` if it is unknown.
        proved: whether the settings satisfy the theorem: mu and L are known, not estimated, ``lr``
            is 1, and gradients are neither clipped nor masked.
        steps: steps taken.
        rate: theoretical asymptotic factor on the distance to the minimum per step; ``None`` if the
            rate is not linear.
        bound: c in ``f(x) - min f <= c |x_0 - x*|^2`` at the answer x, for ``nesterov_convex``
            without restarts so far.
        measured: mean factor on the norm of the gradient per step over the second half of the run.
            The theoretical rate applies to it too, since that norm lies between mu and L times the
            distance.
    """

    form: Form
    mu: float | None
    smooth: float | None
    proved: bool
    steps: int
    rate: float | None
    bound: float | None
    measured: float | None

    @property
    def speed(self) -> float | None:
        """Ratio of measured to theoretical digits gained per step; at least 1 as proved."""
        if self.rate is None or self.measured is None or not 0.0 < self.rate < 1.0:
            return None
        return math.log(self.measured) / math.log(self.rate) if self.measured > 0.0 else math.inf

    def __str__(self) -> str:
        known = "proved" if self.proved else "not proved for these settings"
        lines = [
            f"{self.form} with mu = {_shown(self.mu)}, L = {_shown(self.smooth)} ({known})",
            f"for {SCOPES[self.form]}",
            f"factor per step: promised {_shown(self.rate)}, measured {_shown(self.measured)}",
        ]
        if self.bound is not None:
            lines.append(f"gap after {self.steps} steps: at most {self.bound:.4g} |x_0 - x*|^2")
        if self.speed is not None:
            lines.append(f"speed: {round(self.speed, 3) + 0.0:.3f} of the promise")
        return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"

"""An adaptive Runge-Kutta solver that stores its accepted steps for the local penalty."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from anyorder_studies.pal2023localreg.tableaus import TSIT5, LocalRegError, Tableau

# Derivative of the state: maps a time and a state to a tensor like the state.
Field = Callable[[float, Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """One step of an embedded pair.

    Args:
        state: New state.
        error: Difference of the two orders, like the state.
        slopes: Slopes of all stages; the last is the slope at the new state.
        points: States at which the slopes were evaluated.
    """

    state: Tensor
    error: Tensor
    slopes: list[Tensor]
    points: list[Tensor]


def rk_step(
    field: Field,
    t: float,
    z: Tensor,
    h: float,
    tableau: Tableau = TSIT5,
    *,
    slope: Tensor | None = None,
) -> Step:
    """Take one step of an embedded pair; differentiable.

    Args:
        field: Slope of the state.
        t: Time of the state.
        z: State, any shape.
        h: Step, of either sign.
        tableau: The pair.
        slope: ``field(t, z)`` if it is already known, which saves an evaluation.
    """
    points = [z]
    slopes = [field(t, z) if slope is None else slope]
    for c, row in zip(tableau.c[1:], tableau.a[1:], strict=True):
        point = _add_scaled(z, h, row, slopes)
        points.append(point)
        slopes.append(field(t + c * h, point))
    error = _add_scaled(None, h, tableau.error, slopes)
    return Step(points[-1], error, slopes, points)


def scaled_norm(error: Tensor, before: Tensor, after: Tensor, atol: float, rtol: float) -> Tensor:
    """Root mean square of an error relative to the tolerance; values up to 1 are accepted."""
    scale = atol + rtol * torch.maximum(before.abs(), after.abs())
    return (error / scale).square().mean().sqrt()


@torch.no_grad()
def initial_step(
    field: Field,
    t: float,
    z: Tensor,
    end: float,
    *,
    atol: float,
    rtol: float,
    tableau: Tableau = TSIT5,
    slope: Tensor | None = None,
) -> float:
    """Initial step from two slopes, by the rule of Hairer, Norsett and Wanner (II.4).

    It takes one evaluation of the field if ``slope`` is known, otherwise two.

    Returns:
        A step towards ``end`` (negative if ``end < t``), not past it.
    """
    direction, span = math.copysign(1.0, end - t), abs(end - t)
    first = field(t, z) if slope is None else slope
    size, speed = (float(scaled_norm(v, z, z, atol, rtol)) for v in (z, first))
    trial = 1e-6 if min(size, speed) < 1e-5 else 0.01 * size / speed
    trial = min(trial, span)
    second = field(t + direction * trial, z + direction * trial * first)
    bend = float(scaled_norm(second - first, z, z, atol, rtol)) / trial
    if max(speed, bend) <= 1e-15:
        step = max(1e-6, 1e-3 * trial)
    else:
        step = (0.01 / max(speed, bend)) ** (1.0 / tableau.order)
    return direction * min(100.0 * trial, step, span)


@dataclass(frozen=True)
class Solution:
    """A solved initial value problem.

    Args:
        times: Accepted times, from start to end.
        states: States at these times; the last carries the gradient in every mode.
        slopes: Slopes at these times.
        evaluations: Number of evaluations of the field in the forward solve.
        rejected: Number of rejected steps.
    """

    times: list[float]
    states: list[Tensor]
    slopes: list[Tensor]
    evaluations: int
    rejected: int

    @property
    def final(self) -> Tensor:
        """State at the end."""
        return self.states[-1]

    def step_at(self, t: float) -> float:
        """Length of the accepted step that contains a time."""
        i = self._interval(t)
        return self.times[i + 1] - self.times[i]

    def at(self, t: float) -> Tensor:
        """State at any time, by cubic Hermite interpolation (error of order h^4)."""
        i = self._interval(t)
        h = self.times[i + 1] - self.times[i]
        u = (t - self.times[i]) / h
        return (
            (1.0 + 2.0 * u) * (1.0 - u) ** 2 * self.states[i]
            + u * (1.0 - u) ** 2 * h * self.slopes[i]
            + u * u * (3.0 - 2.0 * u) * self.states[i + 1]
            + u * u * (u - 1.0) * h * self.slopes[i + 1]
        )

    def _interval(self, t: float) -> int:
        low, high = sorted((self.times[0], self.times[-1]))
        if not low <= t <= high:
            raise LocalRegError(f"expected a time in [{low}, {high}], got {t}")
        forward = self.times[-1] > self.times[0]
        times = self.times if forward else [-s for s in self.times]
        return min(max(bisect.bisect_right(times, t if forward else -t) - 1, 0), len(times) - 2)


def solve(
    field: Field,
    z0: Tensor,
    t0: float,
    t1: float,
    *,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    tableau: Tableau = TSIT5,
    max_steps: int = 10_000,
) -> Solution:
    """Integrate from ``t0`` to ``t1`` with steps that keep the local error within the tolerance.

    The error norm is computed over the whole tensor, so a batch shares its steps. A
    proportional-integral controller sets step lengths, which carry no gradient; everything else is
    differentiable.

    Args:
        field: Slope of the state.
        z0: State at ``t0``, any shape, floating point.
        t0: Start.
        t1: End; may be before the start.
        rtol: Tolerance relative to the state.
        atol: Absolute tolerance.
        tableau: The embedded pair.
        max_steps: Maximum number of steps, including rejected ones.

    Raises:
        LocalRegError: If a setting is out of range, the state is not finite, or ``max_steps`` is
            reached.
    """
    if t1 == t0 or rtol < 0 or atol <= 0:
        raise LocalRegError(
            f"expected t1 != t0, rtol >= 0 and atol > 0, got {t0}, {t1}, {rtol}, {atol}"
        )
    if not z0.is_floating_point():
        raise LocalRegError(f"expected a floating-point state, got {z0.dtype}")
    slope = field(t0, z0)
    h = initial_step(field, t0, z0, t1, atol=atol, rtol=rtol, tableau=tableau, slope=slope)
    times, states, slopes = [t0], [z0], [slope]
    evaluations, rejected, previous = 2, 0, 1.0
    for _ in range(max_steps):
        t, z = times[-1], states[-1]
        last = abs(t + h - t1) < 1e-12 * abs(t1 - t0) or abs(h) >= abs(t1 - t)
        h = t1 - t if last else h
        step = rk_step(field, t, z, h, tableau, slope=slopes[-1])
        evaluations += len(tableau.c) - 1
        error = float(scaled_norm(step.error, z, step.state, atol, rtol).detach())
        if not math.isfinite(error):
            raise LocalRegError(f"the state stopped being finite near t = {t:g}")
        if error <= 1.0:
            times.append(t1 if last else t + h)
            states.append(step.state)
            slopes.append(step.slopes[-1])
            if last:
                return Solution(times, states, slopes, evaluations, rejected)
            error = max(error, 1e-10)
            factor = 0.9 * error ** (-0.7 / tableau.order) * previous ** (0.4 / tableau.order)
            previous = error
        else:
            rejected += 1
            factor = min(0.9 * error ** (-1.0 / tableau.order), 0.9)
        h = h * min(max(factor, 0.2), 5.0)
    raise LocalRegError(
        f"no end after {max_steps} steps (reached t = {times[-1]:g}); loosen the tolerances or "
        "raise max_steps"
    )


def _add_scaled(
    start: Tensor | None, h: float, weights: tuple[float, ...], slopes: list[Tensor]
) -> Tensor:
    """``start + h sum_j weights[j] slopes[j]``, one operation per term; zero start if ``None``."""
    total = start
    for weight, slope in zip(weights, slopes, strict=True):
        if weight != 0.0:
            part = h * weight
            total = slope * part if total is None else torch.add(total, slope, alpha=part)
    assert total is not None
    return total

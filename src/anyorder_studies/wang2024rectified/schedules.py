"""Forms of diffusion: weights of the sample and the noise at a time in [0, 1].

Every form is ``x_t = alpha(t) x_0 + sigma(t) noise`` with ``alpha(0) = 1`` and ``sigma(0) = 0``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from anyorder.errors import AnyOrderError


class DiffusionError(AnyOrderError, ValueError):
    """A schedule, a shape or a setting of a diffusion model is invalid."""


@dataclass(frozen=True)
class Schedule:
    """A form of diffusion.

    Args:
        name: For messages and figures.
        alpha: Weight of the sample at times (n,) in [0, 1], shape (n,).
        sigma: Weight of the noise at times (n,) in [0, 1], shape (n,).
    """

    name: str
    alpha: Callable[[Tensor], Tensor]
    sigma: Callable[[Tensor], Tensor]

    def at(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """``alpha`` and ``sigma`` at times (n,), shaped to multiply a tensor (n, ...)."""
        if t.shape != like.shape[:1]:
            raise DiffusionError(
                f"expected one time per sample, got times {tuple(t.shape)} for samples "
                f"{tuple(like.shape)}"
            )
        shape = (-1, *([1] * (like.dim() - 1)))
        return self.alpha(t).reshape(shape), self.sigma(t).reshape(shape)


def vp_schedule(first: float = 0.85, last: float = 12.0) -> Schedule:
    r"""The variance-preserving (VP) form: paths of constant predictions are curved.

    The square root of the noise rate grows linearly, :math:`\beta(t) = (\sqrt a + t(\sqrt b - \sqrt
    a))^2`, and :math:`\alpha(t) = \exp(-\frac12\int_0^t\beta)`, :math:`\sigma = \sqrt{1 -
    \alpha^2}`. The defaults are the continuous counterpart of Stable Diffusion's thousand steps;
    ``alpha(1)`` is 0.069.

    Args:
        first: Noise rate ``a`` at time 0, positive.
        last: Noise rate ``b`` at time 1, at least ``a``.
    """
    if not 0.0 < first <= last:
        raise DiffusionError(f"expected 0 < first <= last, got {first} and {last}")
    low, rise = math.sqrt(first), math.sqrt(last) - math.sqrt(first)

    def integral(t: Tensor) -> Tensor:
        return low * low * t + low * rise * t.square() + rise * rise * t.pow(3) / 3.0

    return Schedule(
        "VP",
        lambda t: (-0.5 * integral(t)).exp(),
        lambda t: (-(-integral(t)).expm1()).clamp_min(0.0).sqrt(),
    )


def sub_vp_schedule(first: float = 0.85, last: float = 12.0) -> Schedule:
    """The sub-VP form: ``alpha`` of the VP form with ``sigma = 1 - alpha^2``."""
    alpha = vp_schedule(first, last).alpha
    return Schedule("sub-VP", alpha, lambda t: 1.0 - alpha(t).square())


def flow_schedule() -> Schedule:
    """The flow-matching form ``(1 - t) x_0 + t noise``: paths of constant velocity are straight."""
    return Schedule("flow matching", lambda t: 1.0 - t, lambda t: t)


SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "vp": vp_schedule,
    "sub-vp": sub_vp_schedule,
    "flow": flow_schedule,
}

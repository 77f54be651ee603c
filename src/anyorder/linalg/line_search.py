"""Inner steps on a surrogate: gradient descent, with or without a line search, and L-BFGS."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anyorder.oracle import Oracle
from anyorder.oracle.curvature import OutputGrad

Vector = list[Tensor]

#: A trial step with too small a decrease is halved, at most this many times. Inner steps start with
#: the previous step size, and the first with twice the largest of the previous outer step.
HALVINGS = 40
#: Inner steps end at this fraction of the first expected decrease, the resolution of float32.
TINY = 1e-14
#: Required fraction of the expected decrease of a quasi-Newton step, and its number of pairs.
QUASI_NEWTON_FALL, PAIRS = 1e-4, 10


class Search:
    """Minimises ``eta S`` over displacements from the current point, where it is zero.

    Args:
        oracle: evaluates values and gradients of the surrogate.
        found: the loss, the outputs and the gradient with respect to them at the current point.
        eta: step size in output space.
        inner_lr: step size without a line search.
        fall: fraction of the expected decrease that a gradient step with a line search must reach.

    Attributes:
        length: the largest accepted step size, or None.
    """

    def __init__(
        self, oracle: Oracle, found: OutputGrad, eta: float, inner_lr: float, fall: float
    ) -> None:
        self.inner_lr, self.fall = inner_lr, fall
        self.length: float | None = None
        pull, origin, samples = found.grad_outputs * eta, found.outputs, found.samples

        def surrogate(outputs: Tensor) -> Tensor:
            gap = outputs.to(origin.dtype) - origin
            return (pull * gap).sum() + (gap * gap).sum() / (2 * samples)

        self.asked, self.trials = (
            oracle.reusing_outputs(surrogate),
            oracle.reusing_outputs(surrogate, nonfinite="ignore"),  # a trial may fail
        )
        self.params = list(oracle.params.values())
        self.slope = [s * eta for s in self._wide(found.grads)]

    def run(self, inner: str, steps: int, trial: float) -> Vector:
        """Return the displacement after ``steps`` inner steps, or fewer if no step improves it."""
        value, slope = 0.0, self.slope
        moved = [torch.zeros_like(s) for s in slope]
        least, taken, pairs = 0.0, moved, list[tuple[Vector, Vector]]()
        for step in range(steps):
            if step:
                loss, grads = self.asked.grad_at(self.asked.shift(moved))
                value, new = float(loss), self._wide(grads)
                if inner == "lbfgs":
                    bent = [b - a for a, b in zip(slope, new, strict=True)]
                    pairs = remember(pairs, taken, bent)
                slope = new
            away = quasi_newton(slope, pairs) if inner == "lbfgs" else slope
            size = self.inner_lr
            if inner != "gd":
                first = 1.0 if pairs else trial
                fall = _dot(slope, away)
                least = TINY * fall if step == 0 else least
                size = self._backtrack(inner, value, moved, away, fall, first, least)
                if not size:
                    break
                if not pairs:
                    self.length, trial = max(size, self.length or 0.0), size
            taken = [-(size * a) for a in away]
            moved = [m + t for m, t in zip(moved, taken, strict=True)]
        return moved

    def _backtrack(
        self,
        inner: str,
        value: float,
        moved: Vector,
        away: Vector,
        fall: float,
        size: float,
        least: float,
    ) -> float:
        """The first of ``size``, ``size / 2``, ... with enough decrease; 0 if there is none."""
        if not fall > least:
            return 0.0
        share = QUASI_NEWTON_FALL if inner == "lbfgs" else self.fall
        for _ in range(HALVINGS):
            there = [m - size * a for m, a in zip(moved, away, strict=True)]
            if float(self.trials.values([self.trials.shift(there)])) <= value - share * size * fall:
                return size
            size /= 2
        return 0.0

    def _wide(self, grads: Sequence[Tensor | None]) -> Vector:
        """Contiguous gradients, half precision as float32."""
        return [
            (torch.zeros_like(p) if g is None else g)
            .to(torch.promote_types(p.dtype, torch.float32))
            .contiguous()  # so that sums do not depend on strides
            for g, p in zip(grads, self.params, strict=True)
        ]


def remember(
    pairs: list[tuple[Vector, Vector]], s: Vector, y: Vector
) -> list[tuple[Vector, Vector]]:
    """Append a pair if the surrogate has positive curvature along it; keep the last ten."""
    return [*pairs, (s, y)][-PAIRS:] if _dot(s, y) > 1e-12 * _dot(y, y) else pairs


def quasi_newton(slope: Vector, pairs: list[tuple[Vector, Vector]]) -> Vector:
    """The L-BFGS inverse Hessian times ``slope`` (two-loop recursion; Nocedal, 1980)."""
    away, shares = slope, list[float]()
    for s, y in reversed(pairs):
        shares.append(_dot(s, away) / _dot(s, y))
        away = [a - shares[-1] * b for a, b in zip(away, y, strict=True)]
    if pairs:
        s, y = pairs[-1]
        scale = _dot(s, y) / _dot(y, y)
        away = [scale * a for a in away]
    for (s, y), share in zip(pairs, reversed(shares), strict=True):
        back = share - _dot(y, away) / _dot(s, y)
        away = [a + back * b for a, b in zip(away, s, strict=True)]
    return away


def _dot(left: Vector, right: Vector) -> float:
    return float(sum((a.double() * b.double()).sum() for a, b in zip(left, right, strict=True)))

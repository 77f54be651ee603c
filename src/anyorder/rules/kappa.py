r"""Convex functions of a tensor, whose gradients are the directions of Lion-K.

For an even convex function :math:`\kappa` with conjugate :math:`\kappa^*(y) = \sup_v v \cdot y -
\kappa(v)`, momentum mapped by :math:`\nabla \kappa` together with decoupled weight decay
:math:`\lambda` minimises :math:`f(x) + \kappa^*(\lambda x) / \lambda`. All functions here but one
grow like a norm, so their conjugates are infinite outside the unit ball of the dual norm: weight
decay determines the radius. The last column describes :math:`\kappa^*(y)`.

| name | `kappa(v)` | its gradient | domain and value of the conjugate |
|---|---|---|---|
| `l1` | sum of abs(v) | sign(v) | max abs(y) <= 1: 0 |
| `l2` | Euclidean norm | v over its norm | norm of y <= 1: 0 |
| `lp` | p-norm | sign(v) abs(v)^(p-1), scaled | q-norm of y <= 1, where 1/p + 1/q = 1: 0 |
| `squared` | half the squared norm | v | everywhere: half the squared norm |
| `huber` | Huber's function over e | v / e, clipped to [-1, 1] | max abs(y) <= 1: e/2 norm² |
| `soft` | sum of max(abs(v) - e, 0) | sign where abs(v) > e, else 0 | max abs(y) <= 1: e sum(abs) |
| `group` | sum of the rows' norms | rows over their norms | norm of each row <= 1: 0 |
| `spectral` | sum of singular values | U V' of v = U S V' | singular values <= 1: 0 |

Tensors are treated as matrices whose rows correspond to the first axis (the outputs of a layer);
a vector is a single column.

References:
    Chen, Liu, Liang and Liu (2023), "Lion Secretly Solves Constrained Optimization: As Lyapunov
    Predicts", arXiv 2310.05898; Chen, Li and Liu (2025), arXiv 2506.15054, for the nuclear norm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from anyorder.engine.tensors import full_precision

Map = Callable[[Tensor], Tensor]
NAMES = ("l1", "l2", "lp", "squared", "huber", "soft", "group", "spectral")


@dataclass(frozen=True, slots=True)
class Kappa:
    """One of the functions and its derivatives, for tensors of any shape.

    Attributes:
        value: ``kappa(v)``, shape ().
        gradient: its gradient (a subgradient with minimal norm), shape of ``v``.
        dual: the norm in whose unit ball the conjugate is finite, shape (); ``None``: it is finite
            everywhere.
        ball: description of that norm.
        penalty: the conjugate inside the ball, shape (); ``None``: zero.
    """

    value: Map
    gradient: Map
    dual: Map | None
    ball: str
    penalty: Map | None = None

    def conjugate(self, y: Tensor, slack: float = 0.0) -> float:
        """``kappa*(y)``; infinite where the dual norm exceeds ``1 + slack``."""
        if self.dual is not None and float(self.dual(y)) > 1.0 + slack:
            return float("inf")
        return 0.0 if self.penalty is None else float(self.penalty(y))


def kappa(name: str, *, p: float = 2.0, threshold: float = 1.0) -> Kappa:
    """Return the function ``name``.

    Args:
        name: one of :data:`NAMES`.
        p: exponent of ``lp``, at least 1.
        threshold: width e of ``huber`` (positive) and ``soft``.
    """
    if name == "l1":
        return Kappa(_sum, torch.sign, _largest, "max |x|")
    if name == "l2":
        return Kappa(_norm, _unit, _norm, "norm of x")
    if name == "lp":
        q = p / (p - 1.0) if p > 1.0 else float("inf")
        return Kappa(
            lambda v: torch.linalg.vector_norm(v, p),
            lambda v: _unit_p(v, p),
            lambda y: torch.linalg.vector_norm(y, q),
            f"{q:.4g}-norm of x",
        )
    if name == "squared":
        return Kappa(_half_square, torch.clone, None, "no bound", _half_square)
    if name == "huber":
        return Kappa(
            lambda v: _huber(v, threshold),
            lambda v: clipped(v, 1.0 / threshold),
            _largest,
            "max |x|",
            lambda y: threshold * _half_square(y),
        )
    if name == "soft":
        return Kappa(
            lambda v: (v.abs() - threshold).clamp(min=0.0).sum(),
            lambda v: loud(v, threshold),
            _largest,
            "max |x|",
            lambda y: threshold * y.abs().sum(),
        )
    if name == "group":
        return Kappa(
            lambda v: _row_norms(v).sum(), _unit_rows, lambda y: _row_norms(y).max(), "norm of rows"
        )
    assert name == "spectral", f"expected one of {NAMES}, got {name!r}"
    return Kappa(
        lambda v: torch.linalg.svdvals(matrix(v)).sum(),
        lambda v: _polar(matrix(v)).reshape(v.shape),
        lambda y: torch.linalg.svdvals(matrix(y)).max(),
        "largest singular value of x",
    )


# Gradients ----------------------------------------------------------------------------------------


def clipped(v: Tensor, slope: Tensor | float) -> Tensor:
    """``slope * v`` within [-1, 1]: the gradient of ``huber`` of width ``1 / slope``."""
    return (v * slope).clamp(-1.0, 1.0)


def loud(v: Tensor, threshold: Tensor | float) -> Tensor:
    """Signs of elements above the threshold, else 0: the gradient of ``soft``."""
    return torch.where(v.abs() > threshold, v.sign(), 0.0)


def _unit(v: Tensor) -> Tensor:
    scaled = v / _positive(_largest(v))  # squares neither underflow nor overflow
    return scaled / _positive(_norm(scaled))


def _unit_p(v: Tensor, p: float) -> Tensor:
    scaled = v.abs() / _positive(_largest(v))
    size = _positive(torch.linalg.vector_norm(scaled, p))
    return v.sign() * (scaled / size) ** (p - 1.0)


def _unit_rows(v: Tensor) -> Tensor:
    rows = matrix(v)
    scaled = rows / _positive(rows.abs().amax(1, keepdim=True))
    return (scaled / _positive(_row_norms(scaled).unsqueeze(1))).reshape(v.shape)


def _polar(v: Tensor) -> Tensor:
    """``U V'``; singular values that are zero up to rounding stay zero, like the sign of zero."""
    left, sizes, right = torch.linalg.svd(v, full_matrices=False)
    floor = sizes[:1] * (max(v.shape) * torch.finfo(v.dtype).eps)
    with full_precision(v):
        return (left * (sizes > floor)) @ right


def _positive(size: Tensor) -> Tensor:
    return torch.where(size > 0, size, 1.0)


# Values -------------------------------------------------------------------------------------------


def matrix(v: Tensor) -> Tensor:
    """Return ``v`` as a matrix whose rows correspond to its first axis; a vector is a column."""
    return v.flatten(1) if v.dim() > 1 else v.reshape(-1, 1)


def _sum(v: Tensor) -> Tensor:
    return v.abs().sum()


def _norm(v: Tensor) -> Tensor:
    return torch.linalg.vector_norm(v)


def _largest(v: Tensor) -> Tensor:
    return torch.linalg.vector_norm(v, float("inf"))


def _half_square(v: Tensor) -> Tensor:
    return (v * v).sum() / 2.0


def _huber(v: Tensor, threshold: float) -> Tensor:
    size = v.abs()
    return torch.where(size > threshold, size - threshold / 2.0, v * v / (2.0 * threshold)).sum()


def _row_norms(v: Tensor) -> Tensor:
    return torch.linalg.vector_norm(matrix(v), dim=1)

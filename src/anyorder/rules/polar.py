"""The orthonormal factor of a matrix: exactly, or by matrix products alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

Polar = Literal["auto", "svd", "newton-schulz"]

#: ``auto`` is exact up to this shorter side (per device type). On one core of a processor the exact
#: way is the faster one to any size; accelerators are good at products and poor at the rest.
EXACT_SIDE = {"cpu": 1024, "cuda": 64}
#: Odd polynomial that lifts small singular values fast and leaves all of them near 1 (Jordan et
#: al., 2024); it does not converge, so steps that do come after it.
LIFT = (3.4445, -4.7750, 2.0315)
LIFTS, SETTLES = 10, 5


def polar(matrices: Tensor, method: Polar = "auto") -> Tensor:
    r"""The factor :math:`U V^\top` of :math:`A = U \Sigma V^\top`, a gradient of the nuclear norm.

    Singular values that are zero, up to rounding, stay zero, as the sign of zero does. No singular
    value of the result exceeds 1 by more than rounding, whatever the method.

    Args:
        matrices: shape (..., rows, columns), float32 or float64.
        method: ``svd`` is exact and costs some :math:`20 r^2 c` operations for shorter side r and
            longer side c, hard to run in parallel. ``newton-schulz`` takes 40 matrix products, 60
            to :math:`80 r^2 c` operations at the full speed of the device; singular values below
            about :math:`3 \times 10^{-6}` of the Frobenius norm end below 1. ``auto`` is ``svd``
            while the shorter side is at most :data:`EXACT_SIDE`.

    Returns:
        A tensor of the same shape and dtype.
    """
    if not matrices.numel():
        return matrices.clone()
    side = min(matrices.shape[-2:])
    if method == "svd" or (method == "auto" and side <= _exact_side(matrices)):
        return _exact(matrices)
    return _products(matrices)


def polar_all(matrices: Sequence[Tensor], method: Polar = "auto") -> list[Tensor]:
    """:func:`polar` of several matrices, those of one shape in one call."""
    alike: dict[Any, list[int]] = {}
    for index, each in enumerate(matrices):
        alike.setdefault((each.shape, each.dtype, each.device), []).append(index)
    found = list(matrices)
    for places in alike.values():
        factors = polar(torch.stack([matrices[i] for i in places]), method)
        for place, factor in zip(places, factors, strict=True):
            found[place] = factor
    return found


def _exact_side(matrices: Tensor) -> int:
    return EXACT_SIDE.get(matrices.device.type, EXACT_SIDE["cuda"])


def _exact(matrices: Tensor) -> Tensor:
    left, sizes, right = torch.linalg.svd(matrices, full_matrices=False)
    floor = sizes[..., :1] * (max(matrices.shape[-2:]) * torch.finfo(matrices.dtype).eps)
    return (left * (sizes > floor).to(left.dtype).unsqueeze(-2)) @ right


def _products(matrices: Tensor) -> Tensor:
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    # In two steps, since the squares of tiny or huge elements leave the range of float32.
    largest = x.abs().amax((-2, -1), keepdim=True)
    x = x / torch.where(largest > 0, largest, 1.0)
    size = torch.linalg.matrix_norm(x, keepdim=True)
    x = x / torch.where(size > 0, size, 1.0)
    a, b, c = LIFT
    for _ in range(LIFTS):
        square = x @ x.mT
        x = a * x + (b * square + c * (square @ square)) @ x
    for _ in range(SETTLES):  # at most 1 afterwards, and closer each time
        x = 1.5 * x - 0.5 * (x @ x.mT) @ x
    return x if wide else x.mT

"""Plain functions on tensors and lists of tensors that several modules share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)


def sqrt(x: Tensor) -> Tensor:
    """Square root, correctly rounded for float32, so that eager and compiled rules agree.

    The CPU's eager vector library is one unit in the last place off now and then. A root taken in
    float64 and rounded is exact: the root of a 24-bit number is never that close to a midpoint.
    """
    if x.dtype is torch.float32 and x.device.type == "cpu" and not torch.compiler.is_compiling():
        return x.double().sqrt().float()
    return x.sqrt()


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether no element is NaN or infinite. One pass over the data, one number to the host."""
    full = [t for t in tensors if t.numel()]
    if not full:
        return True
    # The largest magnitude is NaN or infinite exactly when some element is, and cannot overflow.
    largest = torch._foreach_norm(full, math.inf)  # pyright: ignore
    return bool(torch.isfinite(torch.stack([n.float() for n in largest])).all())

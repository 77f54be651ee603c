"""Functions on tensors and lists of tensors that several modules use."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

HALF = frozenset({torch.bfloat16, torch.float16})
#: A tensor of at most so many elements is summed sooner by Python than by an operation.
FEW = 64


def sqrt(x: Tensor) -> Tensor:
    """Square root, correctly rounded for float32, so that eager and compiled rules agree.

    PyTorch's eager CPU kernels use a vector library that is sometimes off by one unit in the last
    place; NumPy and compiled rules use the CPU's instruction.
    """
    if x.dtype is torch.float32 and x.is_cpu and not torch.compiler.is_compiling():
        return torch.from_numpy(np.sqrt(x.numpy()))
    return x.sqrt()


def full_precision(like: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Context that disables autocast, so that products keep their dtype."""
    kind = like.device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return contextlib.nullcontext()
    return torch.autocast(kind, enabled=False)


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether all elements are finite. Takes one pass and one transfer to the host."""
    if not tensors:
        return True
    # NaN and infinities propagate through a sum, which is the fastest pass over memory. Only a sum
    # that overflows needs a second check.
    first = tensors[0]
    if len(tensors) == 1 and first.is_cpu and first.numel() <= FEW:
        numbers = first if first.dim() == 1 else first.reshape(-1)
        finite = math.isfinite(sum(numbers.tolist()))
    else:
        sums = [t.sum(dtype=torch.float32) if t.dtype in HALF else t.sum() for t in tensors]
        if len(sums) < 8 and sums[0].is_cpu:
            finite = all(map(math.isfinite, map(Tensor.item, sums)))
        else:
            finite = bool(torch.stack(sums).isfinite().all())
    return finite or all(bool(t.isfinite().all()) for t in tensors)


def mix(x: Tensor, key: Tensor) -> Tensor:
    """A 32-bit integer hash with full avalanche: xor-shift and multiply, twice, with a key between.

    The multipliers are those of the two-round hash of Ellis (2018), chosen by search for least
    bias. Arithmetic shifts are masked, since torch has no logical shift of signed integers.
    """
    x = x ^ ((x >> 16) & 0xFFFF)
    x = (x * 0x7FEB352D) ^ key
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * (0x846CA68B - (1 << 32))
    return x ^ ((x >> 16) & 0xFFFF)

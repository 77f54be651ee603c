"""A hash over all bits of tensors: whether two sets of weights are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def hash_of(tensors: Mapping[str, Tensor], size: int = 32) -> bytes:
    """Return a hash of ``size`` bytes over names, dtypes, shapes and bits, in any order."""
    total = hashlib.blake2b(digest_size=size)
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        content: Any = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        total.update(content)
    return total.digest()

"""Peak memory, size of optimizer state, and hashes of models."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from anyorder.compare.plan.limits import size_of
from anyorder.errors import AnyOrderError
from anyorder.model.sharding import full, local

_STATUS = "/proc/self/status"
#: Writing to this file resets the peak.
_RESET = "/proc/self/clear_refs"


class MemoryLimitError(AnyOrderError, RuntimeError):
    """A run needs more memory than its limit."""


def excess(peak: int, limit: int | None) -> str | None:
    """The error of a run whose peak memory exceeds its limit; None if it does not.

    Args:
        peak: peak memory in bytes.
        limit: largest allowed peak in bytes; None: no limit.
    """
    if limit is None or peak <= limit:
        return None
    return f"its peak memory of {size_of(peak)} exceeds the limit of {size_of(limit)}"


def require(peak: int, limit: int | None) -> None:
    """Raise :class:`MemoryLimitError` if a peak exceeds a limit; see :func:`excess`."""
    if over := excess(peak, limit):
        raise MemoryLimitError(over)


def measurable(device: torch.device | str) -> bool:
    """Whether the peak memory of a single run can be measured, not only that of a process."""
    return torch.device(device).type == "cuda" or os.access(_RESET, os.W_OK)


def reset_peak(device: torch.device | str = "cpu") -> None:
    """Return unused memory to the system and reset the peak."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc only
    with contextlib.suppress(OSError), open(_RESET, "w") as file:
        file.write("5")


def peak_bytes(device: torch.device | str = "cpu") -> int:
    """Peak memory since :func:`reset_peak`: of the process, or allocated on a GPU.

    Only Linux can reset the peak; on other systems it is the peak since the process started, or 0
    if it is not available.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        with open(_STATUS) as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return _lifetime_peak()


def _lifetime_peak() -> int:
    try:
        import resource  # not on Windows
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of all tensors in an optimizer, each storage counted once.

    Parameters and their gradients are not counted, even if the optimizer refers to them.
    """
    own = {
        local(p).untyped_storage().data_ptr() for g in optimizer.param_groups for p in g["params"]
    }
    sizes: dict[int, int] = {}
    for tensor in _tensors(dict(optimizer.state)):
        storage = local(tensor).untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for part in tree.values():  # pyright: ignore[reportUnknownVariableType]
            yield from _tensors(part)
    elif isinstance(tree, (list, tuple)):
        for part in tree:  # pyright: ignore[reportUnknownVariableType]
            yield from _tensors(part)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all parameters and buffers of a model.

    Sharded parameters (DTensor) are gathered: all processes must call this.
    """
    digest = hashlib.sha256()
    named = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        held = full(tensor.detach()).cpu().contiguous()
        digest.update(f"{name} {held.dtype} {tuple(held.shape)}".encode())
        digest.update(held.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

"""Copies many small tensors to one flat tensor and back, in one call.

PyTorch takes 1 to 2 us per tensor in each direction, more than a rule needs for a thousand
elements. On CPUs a few lines of C++, compiled once per machine in a fraction of a second, copy
ordinary contiguous tensors by address. All other tensors, and machines without a compiler, use
``torch.cat``, which moves the same bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import subprocess
import tempfile
import threading
from array import array
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anyorder.engine.kernels import cache_folder

_SOURCE = """
#include <cstdint>
#include <cstring>

// Piece i is elements starts[i] to starts[i + 1] of flat; an element has size bytes.
extern "C" void gather(char* flat, char* const* pieces, const int64_t* starts, int64_t count,
                       int64_t size, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < count; ++i)
    std::memcpy(flat + starts[i] * size, pieces[i], (starts[i + 1] - starts[i]) * size);
}

extern "C" void scatter(const char* flat, char* const* pieces, const int64_t* starts, int64_t count,
                        int64_t size, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < count; ++i)
    std::memcpy(pieces[i], flat + starts[i] * size, (starts[i + 1] - starts[i]) * size);
}
"""
#: Tensor classes whose elements are stored directly in memory.
_ORDINARY = {Tensor, nn.Parameter}


class Pack:
    """The positions of several tensors in one flat tensor.

    Args:
        sizes: elements of each tensor.
        native: whether C++ may be compiled.
    """

    def __init__(self, sizes: Sequence[int], native: bool = True) -> None:
        self.sizes = list(sizes)
        self.native = native
        self._starts = array("q", accumulate(self.sizes, initial=0))

    def gather(self, tensors: Sequence[Tensor], memory: int) -> Tensor:
        """Copy the elements to one 1-D tensor, whose memory is reused by the next call.

        Args:
            tensors: tensors with the sizes of the pack, on one device and of one dtype.
            memory: index of the memory; packs gathered in one thread share it.
        """
        flat = _kept(tensors[0], memory, self._starts[-1])
        if not self._copy("gather", flat, tensors):
            torch.cat([t.reshape(-1) for t in tensors], out=flat)
        return flat

    def scatter(self, flat: Tensor, tensors: Sequence[Tensor]) -> None:
        """Write the elements of ``flat`` back into ``tensors``."""
        if self._copy("scatter", flat, tensors):
            torch.autograd.graph.increment_version(tensors)
            return
        pieces = [p.view(t.shape) for p, t in zip(flat.split(self.sizes), tensors, strict=True)]
        if any(map(Tensor.is_neg, tensors)):  # the list functions do not support these tensors
            for tensor, piece in zip(tensors, pieces, strict=True):
                tensor.copy_(piece)
        else:
            torch._foreach_copy_(tensors, pieces)  # pyright: ignore

    def _copy(self, way: str, flat: Tensor, tensors: Sequence[Tensor]) -> bool:
        """Copy by address if that is equivalent to copying tensors; return whether it was."""
        copies = _native() if self.native and flat.device.type == "cpu" else None
        if (
            copies is None
            or not _ORDINARY.issuperset(map(type, tensors))
            or list(map(Tensor.numel, tensors)) != self.sizes
            or not all(map(Tensor.is_contiguous, tensors))
            or any(map(Tensor.is_neg, tensors))
            or {t.dtype for t in tensors} != {flat.dtype}
        ):
            return False
        addresses = array("q", map(Tensor.data_ptr, tensors))
        copies[way](
            flat.data_ptr(),
            addresses.buffer_info()[0],
            self._starts.buffer_info()[0],
            len(addresses),
            flat.element_size(),
            torch.get_num_threads(),
        )
        return True


def _kept(like: Tensor, number: int, size: int) -> Tensor:
    """Reusable memory for a pack: new pages would cost more than the copy."""
    memory = _memory(threading.get_ident(), like.device, like.dtype, number)
    if memory.numel() < size:
        memory.resize_(size)
    return memory[:size]


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)
def _memory(thread: int, device: torch.device, dtype: torch.dtype, number: int) -> Tensor:
    return torch.empty(0, device=device, dtype=dtype)


@functools.cache
def _native() -> dict[str, Any] | None:
    """Return the functions of the C++ source, loaded or compiled; None if impossible."""
    digest = hashlib.sha256(_SOURCE.encode()).hexdigest()[:24]
    path = cache_folder() / f"packing-{digest}.so"
    try:
        library = _load(path)
    except (OSError, subprocess.SubprocessError):
        return None
    word = ctypes.c_int64
    signature = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, word, word, ctypes.c_int]
    found: dict[str, Any] = {}
    for way in ("gather", "scatter"):
        found[way] = library[way]
        found[way].argtypes, found[way].restype = signature, None
    return found


def _load(path: Path) -> ctypes.CDLL:
    if path.exists():
        with contextlib.suppress(OSError):  # damaged
            return ctypes.CDLL(str(path))
    _compile(path)
    return ctypes.CDLL(str(path))


def _compile(path: Path) -> None:
    """Compile the source and move the library into the cache atomically."""
    command = [os.environ.get("CXX", "c++"), "-O2", "-shared", "-fPIC"]
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        source, built = Path(scratch) / "packing.cpp", Path(scratch) / path.name
        source.write_text(_SOURCE)
        files = [str(source), "-o", str(built)]
        made = subprocess.run([*command, "-fopenmp", *files], capture_output=True, check=False)
        if made.returncode:  # a compiler without OpenMP
            subprocess.run([*command, *files], capture_output=True, check=True)
        os.replace(built, path)

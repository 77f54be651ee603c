"""Named tensors in one file, in the safetensors format.

The format is a length (8 bytes), a JSON header with names, dtypes, shapes and positions, and the
bytes of the tensors. The header also holds free text by key; a file and what is said about it are
therefore replaced together, in one rename. Other programs can read the files.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anyorder.errors import AnyOrderError
from anyorder.files import replaced

#: Dtypes by their names in the format.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
#: The bytes of the tensors start at a multiple of this, as allocated tensors do.
_ALIGNED = 64
_TEXTS = "__metadata__"


class OffloadError(AnyOrderError, RuntimeError):
    """A model, a folder or a use of the model that offloading does not support, or a full disk."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about its tensors.

    Attributes:
        places: dtype, shape, first byte and end of each tensor in the file.
        texts: free text by key.
    """

    places: dict[str, tuple[torch.dtype, tuple[int, ...], int, int]]
    texts: dict[str, str]


def write(path: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
    """Write a file atomically; a write that fails leaves the old file unchanged.

    Args:
        path: the file.
        tensors: tensors on the CPU by name, of the dtypes in :data:`DTYPES`.
        texts: free text by key.
    """
    # Wide elements and round sizes first: tensors then start where allocated ones might.
    ordered = sorted(
        tensors.items(), key=lambda item: (-item[1].element_size(), item[1].nbytes % _ALIGNED > 0)
    )
    header: dict[str, Any] = {_TEXTS: dict(texts)}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNED)
    with replaced(path) as scratch, scratch.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, tensor in ordered:
            file.write(_bytes(tensor.contiguous()))


def read_header(path: Path) -> Header:
    """Read the header of a file.

    Raises:
        OffloadError: the file is missing, or damaged.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if not 2 <= length <= size - 8:
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            found = json.loads(file.read(length))
        texts = found.pop(_TEXTS, {})
        places = {name: _place(entry, 8 + length, size) for name, entry in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OffloadError(
            f"cannot read {path}: {error}; expected a safetensors file written by this run. "
            "Restore it from a copy, or start again in another folder"
        ) from error
    return Header(places, texts)


def _place(
    entry: Mapping[str, Any], base: int, size: int
) -> tuple[torch.dtype, tuple[int, ...], int, int]:
    dtype, shape = DTYPES[entry["dtype"]], tuple(int(n) for n in entry["shape"])
    start, end = (base + int(place) for place in entry["data_offsets"])
    if end - start != dtype.itemsize * torch.Size(shape).numel() or not base <= start <= end:
        raise ValueError("the position of a tensor does not fit its shape")
    if end > size:
        raise ValueError(f"it ends after {size} bytes, {end} expected")
    return dtype, shape, start, end


def read_into(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill contiguous tensors on the CPU with those of a file, which has the same dtypes.

    Raises:
        OffloadError: the file does not hold these tensors.
    """
    places = checked(path, tensors).places
    with path.open("rb", buffering=0) as file:
        for name, tensor in tensors.items():
            file.seek(places[name][2])
            view, done = _bytes(tensor), 0
            while done < len(view):
                count = file.readinto(view[done:])
                if not count:
                    raise OffloadError(f"{path} became shorter while it was read")
                done += count


def checked(path: Path, tensors: Mapping[str, Tensor]) -> Header:
    """Return the header of a file that holds tensors like these.

    Raises:
        OffloadError: it holds others.
    """
    header = read_header(path)
    found = {name: place[:2] for name, place in header.places.items()}
    wanted = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    if found != wanted:
        differs = sorted(n for n in found.keys() | wanted if found.get(n) != wanted.get(n))
        raise OffloadError(
            f"{path} does not fit the model: {', '.join(differs[:3])} differ in shape or dtype, or "
            "are missing; resume with the model that the run started with"
        )
    return header


def mapped(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, mapped into memory.

    Their pages are read when they are used. Changes stay in memory and do not reach the file. They
    keep their values when the file is replaced.
    """
    header = read_header(path)
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return {
        name: torch.frombuffer(pages, dtype=dtype, count=(end - start) // dtype.itemsize,
                               offset=start).view(shape)
        if end > start
        else torch.empty(shape, dtype=dtype, device="cpu")
        for name, (dtype, shape, start, end) in header.places.items()
    }  # fmt: skip


def _bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU."""
    memory: Any = tensor.detach().view(-1).view(torch.uint8).numpy()
    return memoryview(memory)

"""What ``optimizer.state`` holds for one parameter, and whether it fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from anyorder.engine.stretches import SCALE
from anyorder.errors import AnyOrderError
from anyorder.model.sharding import is_sharded, local

#: What an entry counts besides its tensors: the steps of its parameter.
STEP = "step"
#: Elements per scale of 8-bit buffers that there are.
BLOCKS = (256, 2048)


class StateError(AnyOrderError, ValueError):
    """An entry of ``optimizer.state`` does not fit its parameter."""


@dataclass(frozen=True, slots=True)
class Slot:
    """State of any shape that belongs to a parameter: a factor, an inverse, a history.

    Attributes:
        shape: its shape for a parameter and its group; ``None`` for parameters without it.
        dtype: its dtype; by default the parameter's, but at least float32.
        fill: the value of its elements at first; ``"eye"`` for the identity matrix.
    """

    shape: Callable[[Tensor, Mapping[str, Any]], tuple[int, ...] | None]
    dtype: torch.dtype | None = None
    fill: float | str = 0.0

    def make(self, param: Tensor, group: Mapping[str, Any]) -> Tensor | None:
        """The slot of a parameter as it is at first."""
        shape = self.shape(param, group)
        if shape is None:
            return None
        dtype = self.dtype or torch.promote_types(param.dtype, torch.float32)
        if self.fill == "eye":
            return torch.eye(*shape, dtype=dtype, device=param.device)
        return torch.full(shape, float(self.fill), dtype=dtype, device=param.device)


class Declares(Protocol):
    """What a method declares of its state besides buffers.

    Attributes:
        slots: state of other shapes than the parameters'.
        counters: whole numbers kept for each parameter.
    """

    slots: ClassVar[Mapping[str, Slot]]
    counters: ClassVar[tuple[str, ...]]


def block_of(entries: Mapping[str, Any], name: str) -> int:
    """Elements per scale of a stored buffer; 0 if it is not kept in 8 bits."""
    return int(entries[name].shape[1]) if name + SCALE in entries else 0


def check_entry(
    owner: Declares,
    name: str,
    param: Tensor,
    group: Mapping[str, Any],
    entry: Mapping[str, Any],
    buffers: Sequence[str],
    error: type[AnyOrderError] = StateError,
) -> None:
    """Raise ``error`` unless an entry holds what is kept for its parameter, in its shape."""
    lacking = sorted({STEP, *buffers} - set(entry))
    if lacking:
        raise error(
            f"the state of {name} holds {list(entry)} and lacks {', '.join(lacking)}; give it "
            "whole, or remove it (del optimizer.state[param]) to start afresh"
        )
    for key in (STEP, *owner.counters):
        _check_count(key, name, entry.get(key, 0), error)
    for key in buffers:
        block = block_of_checked(entry, key, name, error)
        shape = tuple(param.shape)
        if block:
            shape = (-(-local(param).numel() // block), block)
            scales, wide = entry[key + SCALE], torch.float32
            _check_tensor(key + SCALE, name, scales, (shape[0], 1), param, error, wide)
        codes = torch.uint8 if block else None
        _check_tensor(key, name, entry[key], shape, param, error, codes)
    for key, slot in owner.slots.items():
        wanted = slot.shape(param, group)
        if key in entry and wanted is not None:
            _check_tensor(key, name, entry[key], tuple(wanted), param, error, slot.dtype)


def block_of_checked(
    entry: Mapping[str, Any], key: str, name: str, error: type[AnyOrderError]
) -> int:
    """:func:`block_of` for an entry that may hold anything."""
    if key + SCALE not in entry:
        return 0
    codes = entry[key]
    if not isinstance(codes, Tensor) or codes.ndim != 2 or codes.shape[1] not in BLOCKS:
        raise error(
            f"{key} of {name} has scales but is no matrix of 8-bit codes in rows of {BLOCKS}; it "
            "is damaged"
        )
    return int(codes.shape[1])


def _check_count(key: str, name: str, value: Any, error: type[AnyOrderError]) -> None:
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        number = -1.0
    if isinstance(value, (bool, str)) or not (number >= 0 and number.is_integer()):
        raise error(f"{key} of {name}: expected a whole number >= 0, got {value!r}")


def _check_tensor(
    key: str,
    name: str,
    value: Any,
    shape: tuple[int, ...],
    param: Tensor,
    error: type[AnyOrderError],
    dtype: torch.dtype | None = None,
) -> None:
    if not isinstance(value, Tensor):
        raise error(f"{key} of {name}: expected a tensor, got {type(value).__name__}")
    if tuple(value.shape) != shape:
        raise error(
            f"{key} of {name} has shape {tuple(value.shape)}; expected {shape} for a parameter of "
            f"shape {tuple(param.shape)}. Change both together, or remove the entry "
            "(del optimizer.state[param]) to start afresh"
        )
    if value.layout is not torch.strided or value.is_meta:
        raise error(f"{key} of {name}: expected a dense tensor with data, got {value.layout}")
    if dtype is not None and value.dtype is not dtype:
        raise error(f"{key} of {name}: expected {dtype}, got {value.dtype}")
    if dtype is None and not value.is_floating_point():
        raise error(f"{key} of {name}: expected real numbers, got {value.dtype}")
    if is_sharded(param) and not is_sharded(value) and value.shape == param.shape:
        raise error(f"{key} of {name}: expected a DTensor, as its parameter is")

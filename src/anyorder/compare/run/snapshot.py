"""A copy of a model and its optimizer, to undo an incomplete step."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from anyorder.model.sharding import local


class Snapshot:
    """All parameters and buffers of a model and the state of an optimizer, in main memory.

    Args:
        model: the model.
        optimizer: its optimizer, of any class. If some attributes cannot be copied, only ``state``
            and ``param_groups`` are.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._tensors = [*model.parameters(), *model.buffers()]
        self._kept = [t.detach().to("cpu", copy=True) for t in self._tensors]
        self._fixed = {id(t) for t in self._tensors}
        self._state = _Copy({}, self._fixed)
        self._take_state()

    def update(self) -> None:
        """Copy the current values."""
        for kept, tensor in zip(self._kept, self._tensors, strict=True):
            kept.copy_(tensor.detach())
        self._take_state()

    def restore(self) -> None:
        """Restore the copied values."""
        with torch.no_grad():
            for tensor, kept in zip(self._tensors, self._kept, strict=True):
                tensor.copy_(kept)
        attributes = vars(self._optimizer)
        if self._whole:
            attributes.clear()
        attributes.update(self._state.load())

    @property
    def bytes(self) -> int:
        """Bytes of the copied tensors."""
        kept = (*self._kept, *self._state.tensors())
        return sum(local(t).untyped_storage().nbytes() for t in kept)

    def _take_state(self) -> None:
        self._state, attributes = _Copy({}, self._fixed), vars(self._optimizer)
        try:
            self._state, self._whole = _Copy(attributes, self._fixed), True
        except (pickle.PicklingError, TypeError, AttributeError, RuntimeError):
            some = {name: attributes[name] for name in ("state", "param_groups")}
            self._state, self._whole = _Copy(some, self._fixed), False


class _Copy:
    """A deep copy whose tensors are in main memory.

    Tensors in ``fixed``, modules, functions and generators are kept by reference. Shared objects
    stay shared.
    """

    def __init__(self, content: Mapping[str, Any], fixed: set[int]) -> None:
        file = io.BytesIO()
        writer = _Writer(file, fixed)
        writer.dump(dict(content))
        self._content, self._parts = file.getvalue(), writer.parts

    def tensors(self) -> Iterable[Tensor]:
        """The copied tensors."""
        return (part for part, device in self._parts if device is not None)

    def load(self) -> dict[str, Any]:
        """Return another deep copy, with tensors on their devices."""
        return _Reader(io.BytesIO(self._content), self._parts).load()


class _Writer(pickle.Pickler):
    """Stores tensors and references in ``parts``; tensors with their device."""

    def __init__(self, file: io.BytesIO, fixed: set[int]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.parts: list[tuple[Any, torch.device | None]] = []
        self._fixed, self._places = fixed, dict[int, int]()

    def persistent_id(self, obj: Any) -> int | None:
        """Return the index in ``parts``; None for objects that are pickled."""
        if not (isinstance(obj, (Tensor, nn.Module, torch.Generator)) or callable(obj)):
            return None
        if id(obj) not in self._places:
            self._places[id(obj)] = len(self.parts)
            if isinstance(obj, Tensor) and id(obj) not in self._fixed:
                self.parts.append(_copied(obj))
            else:
                self.parts.append((obj, None))
        return self._places[id(obj)]


class _Reader(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, parts: list[tuple[Any, torch.device | None]]) -> None:
        super().__init__(file)
        self._parts = [
            part if device is None else _copied(part, device)[0] for part, device in parts
        ]

    def persistent_load(self, pid: int) -> Any:
        """Return the object with this index."""
        return self._parts[pid]


def _copied(tensor: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, torch.device]:
    copy = tensor.detach().to(device, copy=True).requires_grad_(tensor.requires_grad)
    return copy, tensor.device

"""How parameters and their state lie in memory for the engine.

A rule runs on flat stretches. A large contiguous parameter is a stretch by itself. Small or strided
ones are packed: their state lies in one flat buffer for good, and parameters and inputs are
gathered for each call and scattered after it, which costs less than a call for each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from anyorder.tensors import HALF

#: Parameters with fewer elements are packed (per device type).
SMALL = {"cpu": 8_192, "cuda": 262_144}
#: A pack holds at most this many elements.
PACK = {"cpu": 1 << 18, "cuda": 1 << 24}


@dataclass(slots=True)
class Stretch:
    """Parameters that one call of a rule updates, with their state as flat tensors."""

    params: list[Tensor]
    buffers: dict[str, Tensor]
    packed: bool
    #: What ``optimizer.state`` holds for each parameter: its step count and views of the buffers.
    entries: list[dict[str, Any]] = field(default_factory=list)

    def views(self) -> list[dict[str, Tensor]]:
        """The state of each parameter, in its shape, as views of the flat buffers."""
        found: list[dict[str, Tensor]] = [{} for _ in self.params]
        for name, flat in self.buffers.items():
            start = 0
            for views, param in zip(found, self.params, strict=True):
                views[name] = flat[start : start + param.numel()].view(param.shape)
                start += param.numel()
        return found

    def alone(self) -> list[Stretch]:
        """The same parameters and state as one stretch each."""
        alone: list[Stretch] = []
        start = 0
        entries = self.entries or [{} for _ in self.params]
        for param, entry in zip(self.params, entries, strict=True):
            end = start + param.numel()
            buffers = {name: flat[start:end] for name, flat in self.buffers.items()}
            alone.append(Stretch([param], buffers, not param.is_contiguous(), [entry]))
            start = end
        return alone

    def apply(
        self, run: Callable[[list[Tensor]], None], inputs: Sequence[Sequence[Tensor]]
    ) -> None:
        """Call ``run([param, *buffers, *inputs])`` on flat tensors; write parameters back."""
        if not self.packed:
            flat = [self.params[0].view(-1), *self.buffers.values()]
            run([*flat, *(given[0].reshape(-1) for given in inputs)])
            return
        flat = _gather(self.params)
        run([flat, *self.buffers.values(), *(_gather(given) for given in inputs)])
        views = torch._utils._unflatten_dense_tensors(flat, self.params)  # pyright: ignore
        torch._foreach_copy_(self.params, list(views))  # pyright: ignore


def _gather(tensors: Sequence[Tensor]) -> Tensor:
    if len(tensors) == 1:
        return tensors[0].reshape(-1).clone()
    return torch._utils._flatten_dense_tensors(tensors)  # pyright: ignore


def stretches(params: Iterable[Tensor], buffers: Sequence[str]) -> list[Stretch]:
    """Arrange parameters in stretches with zero state.

    State is kept in the parameter's dtype, half precision in float32.
    """
    found: list[Stretch] = []
    open_packs: dict[Any, tuple[list[Tensor], int]] = {}
    for param in params:
        kind = param.device.type
        if param.is_contiguous() and param.numel() >= SMALL.get(kind, SMALL["cuda"]):
            found.append(_stretch([param], buffers, packed=False))
            continue
        key = (param.device, param.dtype)
        members, size = open_packs.get(key, ([], 0))
        if members and size + param.numel() > PACK.get(kind, PACK["cuda"]):
            found.append(_stretch(members, buffers, packed=True))
            members, size = [], 0
        open_packs[key] = ([*members, param], size + param.numel())
    found.extend(_stretch(members, buffers, packed=True) for members, _ in open_packs.values())
    return found


def _stretch(params: list[Tensor], names: Sequence[str], *, packed: bool) -> Stretch:
    first = params[0]
    dtype = torch.float32 if first.dtype in HALF else first.dtype
    size = sum(p.numel() for p in params)
    buffers = {name: torch.zeros(size, dtype=dtype, device=first.device) for name in names}
    return Stretch(params, buffers, packed)

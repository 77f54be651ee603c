"""How parameters and their state lie in memory for the engine.

A program runs on flat stretches. A large contiguous parameter is a stretch by itself. Small or
strided ones are packed: their state lies in one flat buffer for good, and parameters and inputs are
gathered for each call and scattered after it, which costs less than a call for each of them.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from anyorder.engine import Engine, Program
from anyorder.precision import SMALLEST_8BIT, Format, Parts
from anyorder.sharding import as_sharded, local

#: Parameters with fewer elements are packed (per device type).
SMALL = {"cpu": 8_192, "cuda": 262_144}
#: A pack holds at most this many elements.
PACK = {"cpu": 1 << 18, "cuda": 1 << 24}
#: What the scales of a buffer are called, after the buffer.
SCALE = ".scale"


@dataclass(slots=True)
class Stretch:
    """Parameters that one call of a program updates, with their state as flat tensors.

    Attributes:
        params: the parameters.
        name: that of the first, by which random numbers for the stretch are drawn.
        formats: how each buffer is stored.
        buffers: the stored tensors of each buffer.
        packed: whether parameters and inputs must be gathered.
        entries: what ``optimizer.state`` holds for each parameter: step count and stored tensors.
    """

    params: list[Tensor]
    name: str
    formats: dict[str, Format]
    buffers: dict[str, Parts]
    packed: bool
    entries: list[dict[str, Any]] = field(default_factory=list)
    #: Contiguous parameters as 1-D tensors, if all of a pack are; made again after a copy.
    flats: list[Tensor] = field(default_factory=list)

    def __getstate__(self) -> list[Any]:
        """All fields but the last."""
        return [getattr(self, each.name) for each in fields(self)[:-1]]

    def __setstate__(self, state: list[Any]) -> None:
        """Take over what :meth:`__getstate__` gave."""
        for each, value in zip(fields(self), [*state, []], strict=True):
            setattr(self, each.name, value)

    @property
    def sizes(self) -> list[int]:
        """Elements of each parameter that lie here."""
        return [local(p).numel() for p in self.params]

    def views(self) -> list[dict[str, Tensor]]:
        """The stored state of each parameter, sharing memory with the flat buffers.

        Values are in the shape of the parameter. Codes of 8-bit state stay in rows of blocks; their
        scales are named after the buffer with :data:`SCALE` behind.
        """
        found: list[dict[str, Tensor]] = [{} for _ in self.params]
        for name, parts in self.buffers.items():
            if self.formats[name].block:
                found[0].update({name: parts[0], name + SCALE: parts[1]})
                continue
            for views, shaped in zip(found, self._shaped(parts[0]), strict=True):
                views[name] = shaped
        return found

    def values(self, name: str) -> list[Tensor]:
        """One buffer of each parameter in its shape: the stored tensors, or read from them."""
        flat = self.formats[name].read(self.buffers[name]).view(-1)
        return self._shaped(flat[: sum(self.sizes)])

    def _shaped(self, flat: Tensor) -> list[Tensor]:
        """A flat buffer as one tensor for each parameter, sharing its memory."""
        pieces = flat.split(self.sizes)
        return [
            as_sharded(piece.view(local(param).shape), param)
            for piece, param in zip(pieces, self.params, strict=True)
        ]

    def fill_(self, name: str, values: Tensor) -> None:
        """Store flat ``values`` as a buffer in blocks of the only parameter."""
        form = self.formats[name]
        rows = _padded(values.float(), form.block).view(-1, form.block)
        form.write_(self.buffers[name], rows, None)

    def alone(self) -> list[Stretch]:
        """The same parameters and state as one stretch each."""
        found: list[Stretch] = []
        start = 0
        entries = self.entries or [{} for _ in self.params]
        for param, size, entry in zip(self.params, self.sizes, entries, strict=True):
            end = start + size
            # Only stretches of a single parameter have blocks.
            buffers = {
                name: parts if self.formats[name].block else (parts[0][start:end],)
                for name, parts in self.buffers.items()
            }
            strided = not local(param).is_contiguous()
            found.append(Stretch([param], self.name, self.formats, buffers, strided, [entry]))
            start = end
        return found

    def apply(
        self,
        engine: Engine,
        program: Program,
        inputs: Sequence[Sequence[Tensor]],
        scalars: Mapping[str, Tensor],
    ) -> None:
        """Run ``program`` on parameters, buffers and inputs; write parameters back."""
        here = [local(p) for p in self.params]
        if self.packed:
            pieces = self._flat(here)
            flat = _gathered(0, pieces)
            rest = [
                _gathered(index, [local(t).reshape(-1) for t in given])
                for index, given in enumerate(inputs, 1)
            ]
        else:
            pieces = []
            flat = here[0].view(-1)
            rest = [local(given[0]).reshape(-1) for given in inputs]
        if program.block:
            self._apply_blocks(engine, program, [flat, *rest], scalars)
        else:
            stored = [parts[0] for parts in self.buffers.values()]
            engine.run(program, [flat, *stored, *rest], scalars)
        if self.packed:
            self._scatter(flat, pieces, here)

    def _flat(self, here: list[Tensor]) -> list[Tensor]:
        """Parameters as 1-D tensors, which share their memory where they are contiguous.

        Kept from call to call, since making them costs as much as updating what is so small.
        """
        kept = zip(self.flats, here, strict=False)
        if not self.flats or any(f.data_ptr() != p.data_ptr() for f, p in kept):
            self.flats = [p.view(-1) for p in here] if all(map(Tensor.is_contiguous, here)) else []
        return self.flats or [p.reshape(-1) for p in here]

    def _scatter(self, flat: Tensor, pieces: list[Tensor], here: list[Tensor]) -> None:
        """Write a gathered piece back into the parameters."""
        results = flat.split([p.numel() for p in pieces])
        if self.flats:
            torch._foreach_copy_(pieces, results)  # pyright: ignore
        else:
            for param, result in zip(here, results, strict=True):
                param.copy_(result.view(param.shape))

    def _apply_blocks(
        self,
        engine: Engine,
        program: Program,
        flat: list[Tensor],
        scalars: Mapping[str, Tensor],
    ) -> None:
        """Run on rows of blocks; a last row that is not full is completed for the call."""
        block = program.block
        size = flat[0].numel()
        whole = size - size % block
        stored = list(self.buffers.values())

        def rows(start: int, end: int, tensors: list[Tensor]) -> list[Tensor]:
            state = [t[start // block : -(-end // block)] for parts in stored for t in parts]
            return [tensors[0], *state, *tensors[1:]]

        if whole:
            full = [t[:whole].view(-1, block) for t in flat]
            engine.run(program, rows(0, whole, full), scalars)
        if whole < size:
            ends = [_padded(t[whole:], block).view(-1, block) for t in flat]
            engine.run(program, rows(whole, size, ends), scalars)
            flat[0][whole:].copy_(ends[0].view(-1)[: size - whole])


def _gathered(index: int, tensors: list[Tensor]) -> Tensor:
    """1-D tensors in one, in memory that is kept: fresh pages would cost more than the copy.

    All packs updated in one thread share that memory.
    """
    size = sum(t.numel() for t in tensors)
    memory = _scratch(threading.get_ident(), tensors[0].device, tensors[0].dtype, index)
    if memory.numel() < size:
        memory.resize_(size)
    return torch.cat(tensors, out=memory[:size])


@functools.lru_cache(maxsize=64)
def _scratch(thread: int, device: torch.device, dtype: torch.dtype, index: int) -> Tensor:
    return torch.empty(0, device=device, dtype=dtype)


def _padded(flat: Tensor, block: int) -> Tensor:
    """``flat`` continued with its last element to full blocks.

    What is repeated behaves as the element does and so changes no scale.
    """
    missing = -flat.numel() % block
    return torch.cat([flat, flat[-1:].expand(missing)]) if missing else flat


def stretches(
    named: Iterable[tuple[str, Tensor]],
    buffers: Sequence[str],
    formats: Callable[[str, int], Format],
) -> list[Stretch]:
    """Arrange parameters in stretches with zero state.

    Args:
        named: parameters by name.
        buffers: names of the buffers each of them gets.
        formats: format of a buffer by its name and number of elements.
    """
    blocks = any(formats(name, SMALLEST_8BIT).block for name in buffers)
    found: list[Stretch] = []
    open_packs: dict[Any, tuple[list[tuple[str, Tensor]], int]] = {}

    def close(members: list[tuple[str, Tensor]], packed: bool) -> None:
        params = [param for _, param in members]
        size = sum(local(p).numel() for p in params)
        forms = {name: formats(name, size if len(members) == 1 else 0) for name in buffers}
        made = {name: form.zeros(size, local(params[0])) for name, form in forms.items()}
        found.append(Stretch(params, members[0][0], forms, made, packed))

    for name, param in named:
        here = local(param)
        kind = here.device.type
        small = SMALL.get(kind, SMALL["cuda"])
        if here.numel() >= (min(small, SMALLEST_8BIT) if blocks else small):
            close([(name, param)], packed=not here.is_contiguous())
            continue
        key = (here.device, here.dtype)
        members, size = open_packs.get(key, ([], 0))
        if members and size + here.numel() > PACK.get(kind, PACK["cuda"]):
            close(members, packed=True)
            members, size = [], 0
        open_packs[key] = ([*members, (name, param)], size + here.numel())
    for members, _ in open_packs.values():
        close(members, packed=True)
    return found

"""How parameters and their state lie in memory for the engine.

Parameters of one kind make a stretch, whose state lies in flat buffers for good. In a stretch of
large contiguous ones a program runs on each where it lies. Small or strided ones are packed: they
and their inputs are gathered for each call and scattered after it, which costs less than a call for
each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from anyorder.engine.engine import Engine, Scalars
from anyorder.engine.formats import SMALLEST_8BIT, Format, Parts
from anyorder.engine.packing import Pack
from anyorder.engine.program import Arithmetic, Decay, Program, program_for
from anyorder.model.sharding import as_sharded, local

#: Parameters with fewer elements are packed (per device type).
SMALL = {"cpu": 8_192, "cuda": 262_144}
#: A pack holds at most this many elements.
PACK = {"cpu": 1 << 18, "cuda": 1 << 24}
#: A stretch of large ones takes no further parameter after this many elements.
ROW = 1 << 26
#: What the scales of a buffer are called, after the buffer.
SCALE = ".scale"


class _Kept:
    """What a stretch makes once and keeps from call to call."""

    __slots__ = ("alone", "pack", "programs", "rows")

    def __init__(self) -> None:
        self.alone: list[Stretch] = []
        self.pack: Pack | None = None
        self.programs: dict[Any, Program] = {}
        self.rows: dict[tuple[str, ...], list[tuple[Tensor, ...]]] = {}


@dataclass(slots=True, eq=False)
class Stretch:
    """Parameters that are updated together, with their state as flat tensors.

    Attributes:
        params: the parameters.
        names: what they are called.
        formats: how each buffer is stored.
        buffers: the stored tensors of each buffer.
        packed: whether parameters and inputs must be gathered.
        entries: what ``optimizer.state`` holds for each parameter: step count and stored tensors.
    """

    params: list[Tensor]
    names: list[str]
    formats: dict[str, Format]
    buffers: dict[str, Parts]
    packed: bool
    entries: list[dict[str, Any]] = field(default_factory=list)
    _kept: _Kept = field(default_factory=_Kept, init=False)

    @property
    def sizes(self) -> list[int]:
        """Elements of each parameter that lie here."""
        return [local(p).numel() for p in self.params]

    def fits(self) -> bool:
        """Whether the parameters, at new places in memory, can still be updated like this."""
        device = next((parts[0].device for parts in self.buffers.values()), None)
        here = [local(p) for p in self.params]
        if any(t.device != (device or here[0].device) for t in here):
            return False
        return len(here) < 2 or not _overlapping(self.params)

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

    def program(
        self, rule: Arithmetic, buffers: tuple[str, ...], weights: Format, decay: Decay
    ) -> Program:
        """The program that runs ``rule`` here.

        Args:
            rule: the arithmetic.
            buffers: those of the stretch's buffers that it takes.
            weights: format of the parameters.
            decay: weight decay around the rule.
        """
        key = (rule, buffers, weights, decay)
        made = self._kept.programs.get(key)
        if made is None:
            formats = (weights, *[self.formats[name] for name in buffers])
            made = self._kept.programs[key] = program_for(rule, formats, decay, len(formats))
        return made

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
        if self._kept.alone:
            return self._kept.alone
        found = self._kept.alone
        start = 0
        entries = self.entries or [{} for _ in self.params]
        for param, name, size, entry in zip(
            self.params, self.names, self.sizes, entries, strict=True
        ):
            end = start + size
            # Only stretches of a single parameter have blocks.
            buffers = {
                name: parts if self.formats[name].block else (parts[0][start:end],)
                for name, parts in self.buffers.items()
            }
            packed = not _in_place(local(param))
            found.append(Stretch([param], [name], self.formats, buffers, packed, [entry]))
            start = end
        return found

    def apply(
        self,
        engine: Engine,
        program: Program,
        buffers: tuple[str, ...],
        inputs: Sequence[Sequence[Tensor]],
        scalars: Scalars,
    ) -> None:
        """Run ``program`` on parameters, the named buffers and inputs (lists over parameters)."""
        here = [local(p) for p in self.params]
        rest = [[local(t) for t in given] for given in inputs]
        if not self.packed and not program.block:
            columns = zip(
                here, self._rows(buffers), *[map(_flat, given) for given in rest], strict=True
            )
            rows = [[_flat(param), *stored, *more] for param, stored, *more in columns]
            engine.run_each(program, rows, scalars)
            return
        pack = self._pack(engine) if self.packed else None
        flats = [
            pack.gather(given, number) if pack else _flat(given[0])
            for number, given in enumerate((here, *rest))
        ]
        stored = [self.buffers[name] for name in buffers]
        if program.block:
            _run_blocks(engine, program, stored, flats, scalars)
        else:
            engine.run(program, [flats[0], *[parts[0] for parts in stored], *flats[1:]], scalars)
        if pack:
            pack.scatter(flats[0], here)

    def _pack(self, engine: Engine) -> Pack:
        if self._kept.pack is None:
            self._kept.pack = Pack(self.sizes, native=engine.mode != "eager")
        return self._kept.pack

    def _rows(self, buffers: tuple[str, ...]) -> list[tuple[Tensor, ...]]:
        """The named buffers of each parameter, flat and sharing their memory."""
        found = self._kept.rows.get(buffers)
        if found is None:
            stored = [self.buffers[name][0].view(-1).split(self.sizes) for name in buffers]
            found = list(zip(*stored, strict=True)) if stored else [()] * len(self.params)
            self._kept.rows[buffers] = found
        return found


def _run_blocks(
    engine: Engine,
    program: Program,
    stored: Sequence[Parts],
    flat: list[Tensor],
    scalars: Scalars,
) -> None:
    """Run on rows of blocks; a last row that is not full is completed for the call."""
    block = program.block
    size = flat[0].numel()
    whole = size - size % block

    def rows(start: int, end: int, tensors: list[Tensor]) -> list[Tensor]:
        state = [t[start // block : -(-end // block)] for parts in stored for t in parts]
        return [tensors[0], *state, *tensors[1:]]

    sets = [rows(0, whole, [t[:whole].view(-1, block) for t in flat])]
    if whole < size:
        ends = [_padded(t[whole:], block).view(-1, block) for t in flat]
        sets.append(rows(whole, size, ends))
    engine.run_each(program, sets, scalars)
    if whole < size:
        flat[0][whole:].copy_(sets[-1][0].view(-1)[: size - whole])


def _flat(tensor: Tensor) -> Tensor:
    """``tensor`` in one dimension, sharing its memory where a program can run on that."""
    flat = tensor.detach() if tensor.dim() == 1 else tensor.reshape(-1)
    return flat.resolve_neg() if flat.is_neg() else flat


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
    named = list(named)
    blocks = any(formats(name, SMALLEST_8BIT).block for name in buffers)
    shared = _overlapping([param for _, param in named])
    found: list[Stretch] = []
    unfinished: dict[Any, list[tuple[str, Tensor]]] = {}

    def close(members: list[tuple[str, Tensor]], packed: bool) -> None:
        names, params = map(list, zip(*members, strict=True))
        size = _elements(members)
        forms = {name: formats(name, size if len(members) == 1 else 0) for name in buffers}
        made = {name: form.zeros(size, local(params[0])) for name, form in forms.items()}
        found.append(Stretch(params, names, forms, made, packed))

    for name, param in named:
        here = local(param)
        kind = here.device.type
        small = SMALL.get(kind, SMALL["cuda"])
        large = here.numel() >= (min(small, SMALLEST_8BIT) if blocks else small)
        # Packed together, one of two parameters in the same memory would lose its update.
        if id(param) in shared or (large and (blocks or not _in_place(here))):
            close([(name, param)], packed=not _in_place(here))
            continue
        key = (here.device, here.dtype, not large)
        members = unfinished.setdefault(key, [])
        limit = ROW if large else PACK.get(kind, PACK["cuda"])
        if members and _elements(members) + here.numel() > limit:
            close(members, packed=not large)
            members = unfinished[key] = []
        members.append((name, param))
    for (_, _, packed), members in unfinished.items():
        close(members, packed and (len(members) > 1 or not _in_place(local(members[0][1]))))
    return found


def _overlapping(params: Sequence[Tensor]) -> set[int]:
    """Identities of the parameters that share memory with another one."""
    spans: list[tuple[int, int, int]] = []
    for param in params:
        here = local(param)
        if here.numel() and here.data_ptr():  # neither empty nor on the meta device
            reach = sum((n - 1) * s for n, s in zip(here.shape, here.stride(), strict=True)) + 1
            start = here.data_ptr()
            spans.append((start, start + reach * here.element_size(), id(param)))
    spans.sort()
    found: set[int] = set()
    end, owner = 0, 0
    for start, stop, param in spans:
        if start < end:
            found |= {owner, param}
        if stop > end:
            end, owner = stop, param
    return found


def _elements(members: Iterable[tuple[str, Tensor]]) -> int:
    return sum(local(param).numel() for _, param in members)


def _in_place(here: Tensor) -> bool:
    """Whether a program can run on a tensor where it lies."""
    return here.is_contiguous() and not here.is_neg()

"""Memory layout of parameters and their state for the engine.

A stretch is a group of parameters of the same kind whose state is stored in flat buffers. In a
stretch of large contiguous parameters, a program runs on each parameter in place. Small or strided
parameters are packed: they and their inputs are gathered before each call and scattered after it,
which costs less than one call per parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from anyorder.engine.engine import Engine
from anyorder.engine.formats import SMALLEST_8BIT, Format, Parts
from anyorder.engine.packing import Pack
from anyorder.engine.program import Arithmetic, Decay, Program, Scalars, program_for
from anyorder.model.sharding import as_sharded, local, locals_of

#: Parameters with fewer elements are packed (per device type).
SMALL = {"cpu": 8_192, "cuda": 262_144}
#: A pack holds at most this many elements.
PACK = {"cpu": 1 << 18, "cuda": 1 << 24}
#: A stretch of large parameters is complete after this many elements.
ROW = 1 << 26
#: Suffix of the name of a buffer's scales.
SCALE = ".scale"


class _Kept:
    """Values that a stretch computes once and reuses in later calls."""

    __slots__ = ("alone", "pack", "programs", "rows")

    def __init__(self) -> None:
        self.alone: list[Stretch] = []
        self.pack: Pack | None = None
        self.programs: dict[Any, Program] = {}
        self.rows: dict[tuple[str, ...], list[tuple[Tensor, ...]]] = {}


@dataclass(slots=True, eq=False)
class Stretch:
    """A group of parameters that are updated together, with their state as flat tensors.

    Attributes:
        params: the parameters.
        names: the names of the parameters.
        formats: the storage format of each buffer.
        buffers: the stored tensors of each buffer.
        packed: whether parameters and inputs must be gathered.
        entries: the ``optimizer.state`` of each parameter: step count and stored tensors.
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
        """Number of local elements of each parameter."""
        return [local(p).numel() for p in self.params]

    def fits(self) -> bool:
        """Whether the parameters still fit this layout after they moved in memory."""
        device = next((parts[0].device for parts in self.buffers.values()), None)
        here = [local(p) for p in self.params]
        if any(t.device != (device or here[0].device) for t in here):
            return False
        return len(here) < 2 or not _overlapping(self.params)

    def views(self) -> list[dict[str, Tensor]]:
        """The stored state of each parameter, sharing memory with the flat buffers.

        Values have the shape of the parameter. Codes of 8-bit state stay in rows of blocks; the
        name of their scales is that of the buffer followed by :data:`SCALE`.
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
        """Return the program that runs ``rule`` on this stretch.

        Args:
            rule: the arithmetic.
            buffers: names of the buffers that it uses.
            weights: format of the parameters.
            decay: weight decay around the rule.
        """
        key = (rule, buffers, type(weights), decay)
        made = self._kept.programs.get(key)
        if made is None:
            formats = (weights, *[self.formats[name] for name in buffers])
            made = self._kept.programs[key] = program_for(rule, formats, decay, len(formats))
        return made

    def values(self, name: str) -> list[Tensor]:
        """Return a buffer in the shape of each parameter, stored or converted."""
        flat = self.formats[name].read(self.buffers[name]).view(-1)
        return self._shaped(flat[: sum(self.sizes)])

    def _shaped(self, flat: Tensor) -> list[Tensor]:
        """Split a flat buffer into one tensor per parameter, sharing memory."""
        pieces = flat.split(self.sizes)
        return [
            as_sharded(piece.view(local(param).shape), param)
            for piece, param in zip(pieces, self.params, strict=True)
        ]

    def fill_(self, name: str, values: Tensor) -> None:
        """Store flat ``values`` as a buffer in blocks; the stretch has a single parameter."""
        form = self.formats[name]
        rows = _padded(values.float(), form.block).view(-1, form.block)
        form.write_(self.buffers[name], rows, None)

    def alone(self) -> list[Stretch]:
        """Split into one stretch per parameter, with the same state."""
        if self._kept.alone:
            return self._kept.alone
        found = self._kept.alone
        start = 0
        entries = self.entries or [{} for _ in self.params]
        for param, name, size, entry in zip(
            self.params, self.names, self.sizes, entries, strict=True
        ):
            end = start + size
            # Only stretches with a single parameter have blocks.
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
        """Run ``program`` on parameters, named buffers and the inputs of each parameter."""
        if not self.packed and not program.block:
            rows = self._kept.rows.get(buffers) or self._rows(buffers)
            pairs = zip(rows, inputs, strict=True)
            engine.run_each(program, [[*row, *map(_flat, more)] for row, more in pairs], scalars)
            return
        here = locals_of(self.params)
        pack = self._pack(engine) if self.packed else None
        flats = [
            pack.gather(locals_of(given), number) if pack else _flat(given[0])
            for number, given in enumerate((here, *zip(*inputs, strict=True)))
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
        """Each parameter with the named buffers, flat and sharing memory; kept for later calls."""
        stored = [self.buffers[name][0].view(-1).split(self.sizes) for name in buffers]
        found = list(zip(map(_flat, self.params), *stored, strict=True))
        self._kept.rows[buffers] = found
        return found

    def moved(self) -> None:
        """Take note that parameters moved in memory."""
        for each in (self, *self._kept.alone):
            each._kept.rows.clear()


def _run_blocks(
    engine: Engine,
    program: Program,
    stored: Sequence[Parts],
    flat: list[Tensor],
    scalars: Scalars,
) -> None:
    """Run on rows of blocks; pad an incomplete last row for the call."""
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
    """Flatten ``tensor``, or its shard, sharing its memory if a program can run on it."""
    flat = local(tensor)
    flat = flat.detach() if flat.requires_grad else flat
    flat = flat if flat.dim() == 1 else flat.reshape(-1)
    return flat.resolve_neg() if flat.is_neg() else flat


def _padded(flat: Tensor, block: int) -> Tensor:
    """Pad ``flat`` to full blocks with its last element.

    The padding has the same magnitude as that element, so it changes no scale.
    """
    missing = -flat.numel() % block
    return torch.cat([flat, flat[-1:].expand(missing)]) if missing else flat


def stretches(
    named: Iterable[tuple[str, Tensor]],
    buffers: Sequence[str],
    formats: Callable[[str, int], Format],
) -> list[Stretch]:
    """Group parameters into stretches with zero state.

    Args:
        named: parameters by name.
        buffers: names of the buffers each of them gets.
        formats: returns the format of a buffer from its name and number of elements.
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
        # If two parameters that share memory were packed together, one update would be lost.
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
    """Ids of the parameters that share memory with another parameter."""
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
    """Whether a program can run on a tensor in place."""
    return here.is_contiguous() and not here.is_neg()

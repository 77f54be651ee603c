"""``optimizer.state`` and the flat buffers that rules run on, kept one and the same.

Users and libraries do to ``optimizer.state`` what torch.optim allows: clear it, remove or replace
an entry, move an entry to another parameter, exchange the tensors in it; and they assign
``param.data``, replace parameters in groups and change their dtype. So before each use the layout
compares what it has arranged with what it finds, by identity, and arranges anew what has changed.
Each parameter's entry then belongs to exactly one stretch of buffers.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from anyorder.engine.formats import Blockwise, Format, State, format_for
from anyorder.engine.stretches import SCALE, Stretch, stretches
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


class Owner(Protocol):
    """What is needed of an optimizer."""

    state: Any
    param_groups: list[dict[str, Any]]

    @property
    def slots(self) -> Mapping[str, Slot]:
        """State of other shapes than the parameters'."""
        ...

    @property
    def counters(self) -> tuple[str, ...]:
        """Whole numbers kept for each parameter."""
        ...

    def labels(self, group: dict[str, Any]) -> list[str]:
        """The label of each parameter of a group."""
        ...

    def label_buffers(self, label: str) -> tuple[str, ...]:
        """The buffers of parameters of a label."""
        ...

    @property
    def nonnegative(self) -> frozenset[str]:
        """Buffers that are never negative."""
        ...

    def precision_of(self, group: Mapping[str, Any], param: Tensor) -> State:
        """The precision in which a parameter's buffers are kept."""
        ...


@dataclass(slots=True)
class _Arranged:
    """A stretch, what its parameters were like when it was made, and its views."""

    stretch: Stretch
    label: str
    facts: list[Any]
    views: dict[str, list[Tensor]]
    here: list[Tensor] = field(init=False)
    places: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.here = [local(view) for views in self.views.values() for view in views]
        self.places = list(map(Tensor.data_ptr, self.here))


@dataclass(slots=True)
class _Group:
    """What a group was like when it was last looked at."""

    params: list[Tensor] = field(default_factory=list[Tensor])
    names: list[str] = field(default_factory=list[str])
    labels: list[str] = field(default_factory=list[str])
    arranged: list[_Arranged] = field(default_factory=list[_Arranged])


def same(first: Iterable[Any], second: Iterable[Any]) -> bool:
    """Whether two iterables of equal length hold the same objects."""
    return all(map(operator.is_, first, second))


class StateLayout:
    """The stretches of an optimizer's groups, in agreement with its ``state``."""

    def __init__(self) -> None:
        self._groups: list[_Group] = []

    def current(self, owner: Owner) -> None:
        """Arrange anew what users have changed since the last look."""
        while len(self._groups) < len(owner.param_groups):
            self._groups.append(_Group())
        del self._groups[len(owner.param_groups) :]
        checked = False
        for known, group in zip(self._groups, owner.param_groups, strict=True):
            params = group["params"]
            moved = len(params) != len(known.params) or not same(params, known.params)
            if moved or "param_names" not in group:
                group["param_names"] = self._names(owner, known, group)
            labels = owner.labels(group)
            if (
                moved
                or labels != known.labels
                or group["param_names"] != known.names
                or not all(_is_current(owner, each) for each in known.arranged)
            ):
                checked = checked or _check_unshared(owner)
                self._arrange_anew(owner, known, group, labels)

    def _names(self, owner: Owner, known: _Group, group: dict[str, Any]) -> list[str]:
        """Names for the parameters of a group whose list was changed: the old ones, by place."""
        params, given = group["params"], group.get("param_names", known.names)
        if len(given) == len(params) and len(set(given)) == len(given):
            return list(given)
        had = dict(zip(map(id, known.params), known.names, strict=True))
        taken = {n for g in owner.param_groups if g is not group for n in g.get("param_names", ())}
        taken |= {had[id(p)] for p in params if id(p) in had}
        fresh = (f"param.{i}" for i in itertools.count() if f"param.{i}" not in taken)
        return [had.get(id(p)) or next(fresh) for p in params]

    def stretches(self, owner: Owner, index: int, params: Iterable[Tensor]) -> list[_Arranged]:
        """The stretches of group ``index``, with room made for ``params`` that have none yet."""
        known, group = self._groups[index], owner.param_groups[index]
        wanted = {id(p) for p in params if p not in owner.state}
        if wanted:
            known.arranged += self._made(owner, group, known.labels, wanted)
        return known.arranged

    def forget(self) -> None:
        """Arrange everything anew at the next look."""
        self._groups = []

    def _arrange_anew(
        self, owner: Owner, known: _Group, group: dict[str, Any], labels: list[str]
    ) -> None:
        """Take the state that users left into new stretches; checked before it is touched."""
        names = group["param_names"]
        kept: dict[int, dict[str, Any]] = {}
        for name, param, label in zip(names, group["params"], labels, strict=True):
            entry = owner.state.get(param)
            if not entry:
                owner.state.pop(param, None)  # what reading a defaultdict leaves behind
                continue
            wanted = owner.label_buffers(label)
            had = dict(zip(map(id, known.params), known.labels, strict=True)).get(id(param), label)
            if had != label and owner.label_buffers(had) != wanted:
                continue  # other settings, other state: it starts afresh
            check_entry(owner, name, param, group, entry, wanted)
            kept[id(param)] = entry
        for param in group["params"]:
            owner.state.pop(param, None)
        known.params, known.names, known.labels = list(group["params"]), list(names), labels
        known.arranged = self._made(owner, group, labels, set(kept), kept)

    def _made(
        self,
        owner: Owner,
        group: dict[str, Any],
        labels: Sequence[str],
        wanted: set[int],
        kept: Mapping[int, dict[str, Any]] | None = None,
    ) -> list[_Arranged]:
        """New stretches for the parameters of these identities, with their entries, if any."""
        kept = kept or {}
        by_kind: dict[tuple[str, State], list[tuple[str, Tensor]]] = {}
        for name, param, label in zip(group["param_names"], group["params"], labels, strict=True):
            if id(param) in wanted:
                kind = (label, owner.precision_of(group, param))
                by_kind.setdefault(kind, []).append((name, param))
        made: list[_Arranged] = []
        for (label, precision), named in sorted(by_kind.items(), key=lambda item: item[0]):
            form = _formats(owner, group, precision)
            made += [
                _enter(owner, group, stretch, label, kept)
                for stretch in stretches(named, owner.label_buffers(label), form)
            ]
        return made


def _formats(
    owner: Owner, group: Mapping[str, Any], precision: State
) -> Callable[[str, int], Format]:
    """How buffers are stored, by name and number of elements."""

    def form(name: str, size: int) -> Format:
        block = group.get("state_block", 0)
        return format_for(precision, size, nonnegative=name in owner.nonnegative, block=block)

    return form


def _enter(
    owner: Owner,
    group: dict[str, Any],
    stretch: Stretch,
    label: str,
    kept: Mapping[int, dict[str, Any]],
) -> _Arranged:
    """Put the entries of a new stretch into ``optimizer.state``; entries kept stay the objects."""
    for param, views in zip(stretch.params, stretch.views(), strict=True):
        old = kept.get(id(param), {})
        fresh = {STEP: 0, **dict.fromkeys(owner.counters, 0), **views}
        for name, slot in owner.slots.items():
            if name not in old and (state := slot.make(param, group)) is not None:
                fresh[name] = state
        if old:
            fill(stretch, param, fresh, old, owner.nonnegative)
            stored = {key + end for key in stretch.buffers for end in ("", SCALE)}
            fresh = {**{k: v for k, v in old.items() if k not in stored}, **fresh}
            for name in (STEP, *owner.counters):
                fresh[name] = int(old.get(name, 0))
            for name in owner.slots:
                if name in old:
                    fresh[name] = old[name].to(param.device)
            old.clear()
            old.update(fresh)
            fresh = old
        stretch.entries.append(fresh)
        owner.state[param] = fresh
    names = [key for parts in stretch.views()[:1] for key in parts]
    views = {name: [entry[name] for entry in stretch.entries] for name in names}
    return _Arranged(stretch, label, _facts(stretch.params), views)


def _facts(params: Sequence[Tensor]) -> list[Any]:
    """What a stretch takes for granted of its parameters; cheap enough for every step."""
    here = [local(p) for p in params]
    return [
        list(map(Tensor.data_ptr, here)),
        list(map(Tensor.size, here)),
        list(map(Tensor.is_contiguous, here)),
        [t.dtype for t in here],
    ]


def _is_current(owner: Owner, arranged: _Arranged) -> bool:
    stretch = arranged.stretch
    entries = stretch.entries
    if not same(map(owner.state.get, stretch.params), entries):
        return False
    for name, views in arranged.views.items():
        if not same([entry.get(name) for entry in entries], views):
            return False
    if list(map(Tensor.data_ptr, arranged.here)) != arranged.places:
        return False  # value.data = other moves a tensor that stays the same object
    facts = _facts(stretch.params)
    if facts == arranged.facts:
        return True
    if facts[1:] != arranged.facts[1:] or not stretch.fits():
        return False
    arranged.facts = facts  # the same kind of memory, elsewhere
    return True


def block_of(entries: Mapping[str, Any], name: str) -> int:
    """Elements per scale of a stored buffer; 0 if it is not kept in 8 bits."""
    return int(entries[name].shape[1]) if name + SCALE in entries else 0


def fill(
    stretch: Stretch,
    param: Tensor,
    mine: Mapping[str, Any],
    theirs: Mapping[str, Any],
    nonnegative: frozenset[str],
) -> None:
    """Copy the buffers of one parameter, in whatever precision they were kept."""
    for name, form in stretch.formats.items():
        same_form = block_of(theirs, name) == form.block
        for key in (name, name + SCALE):
            if same_form and key in mine:
                local(mine[key]).copy_(local(theirs[key]))
        if same_form:
            continue
        values = _values(theirs, name, param, name in nonnegative)
        if form.block:
            stretch.fill_(name, values)
        else:
            here = local(mine[name])
            here.copy_(values.view(here.shape))


def _values(entries: Mapping[str, Any], name: str, param: Tensor, nonnegative: bool) -> Tensor:
    """A stored buffer, flat, as its method knows it."""
    stored = entries[name]
    block = block_of(entries, name)
    if not block:
        return local(stored).reshape(-1)
    kept = Blockwise(not nonnegative, block)
    return kept.read((stored, entries[name + SCALE])).view(-1)[: local(param).numel()]


def check_entry(
    owner: Owner,
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


def _check_unshared(owner: Owner) -> bool:
    """True; :class:`StateError` if two parameters of the groups share state."""
    seen: dict[int, str] = {}
    for group in owner.param_groups:
        for name, param in zip(group.get("param_names", ()), group["params"], strict=False):
            for value in owner.state.get(param, {}).values():
                if isinstance(value, Tensor) and value.ndim and value.numel():
                    first = seen.setdefault(local(value).data_ptr(), name)
                    if first != name and local(value).data_ptr():
                        raise StateError(
                            f"{first} and {name} share a tensor of their state; give each its own: "
                            "optimizer.state[b] = copy.deepcopy(optimizer.state[a])"
                        )
    return True


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

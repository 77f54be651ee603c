"""Keeps ``optimizer.state`` and the flat buffers that rules run on consistent.

Users and libraries change ``optimizer.state`` as torch.optim allows: they clear it, remove or
replace entries, move an entry to another parameter, or replace tensors in it. They also assign
``param.data``, replace parameters in groups and change their dtype. Before each use the layout
therefore compares, by identity, what it has arranged with what it finds, and rearranges what has
changed. Each entry then belongs to exactly one stretch of buffers.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from torch import Tensor

from anyorder.engine.formats import Blockwise, Format, State
from anyorder.engine.stretches import SCALE, Stretch, stretches
from anyorder.model.sharding import local, locals_of
from anyorder.optimizer.entry import STEP, Declares, StateError, block_of, check_entry


class Owner(Declares, Protocol):
    """What is needed of an optimizer.

    Attributes:
        state: entries by parameter.
        param_groups: its groups.
        nonnegative: buffers that are never negative.
    """

    state: Any
    param_groups: list[dict[str, Any]]
    nonnegative: ClassVar[frozenset[str]]

    def labels(self, group: dict[str, Any]) -> list[str]:
        """The label of each parameter of a group."""
        ...

    def label_buffers(self, label: str) -> tuple[str, ...]:
        """The buffers of parameters of a label."""
        ...

    def _format(self, group: Mapping[str, Any], state: State, name: str, size: int) -> Format:
        """How a buffer of ``size`` elements is stored."""
        ...

    def precision_of(self, group: Mapping[str, Any], param: Tensor) -> State:
        """The precision in which a parameter's buffers are kept."""
        ...


@dataclass(slots=True)
class _Arranged:
    """A stretch, what its parameters were like when it was made, and its views by name."""

    stretch: Stretch
    label: str
    facts: list[Any]
    names: list[str]
    views: list[Tensor] = field(init=False)
    here: list[Tensor] = field(init=False)
    places: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.views = [entry[name] for name in self.names for entry in self.stretch.entries]
        self.here = list(map(local, self.views))
        self.places = list(map(Tensor.data_ptr, self.here))


@dataclass(slots=True)
class _Group:
    """A parameter group as it was at the last check."""

    params: list[Tensor] = field(default_factory=list[Tensor])
    names: list[str] = field(default_factory=list[str])
    labels: list[str] = field(default_factory=list[str])
    arranged: list[_Arranged] = field(default_factory=list[_Arranged])
    bare: set[int] = field(default_factory=set[int])  # identities of parameters without state


class StateLayout:
    """The stretches of an optimizer's groups, consistent with its ``state``."""

    def __init__(self) -> None:
        self._groups: list[_Group] = []
        self._entries: dict[Tensor, Any] | None = None  # optimizer.state, where all fits it

    def current(self, owner: Owner) -> None:
        """Rearrange what users have changed since the last check."""
        groups, state = owner.param_groups, owner.state
        # Comparing whole dictionaries in their order takes no look-up per parameter.
        same = (
            self._entries is not None
            and len(state) == len(self._entries)
            and all(map(operator.is_, state, self._entries))
            and all(map(operator.is_, state.values(), self._entries.values()))
        )
        if len(self._groups) != len(groups):
            self._groups = [*self._groups, *(_Group() for _ in groups)][: len(groups)]
        checked = False
        for known, group in zip(self._groups, groups, strict=True):
            params = group["params"]
            moved = len(params) != len(known.params) or not all(
                map(operator.is_, params, known.params)
            )
            if moved or "param_names" not in group:
                group["param_names"] = self._names(owner, known, group)
            labels = owner.labels(group)
            if (
                moved
                or labels != known.labels
                or group["param_names"] != known.names
                or not all(_is_current(each, None if same else state) for each in known.arranged)
            ):
                checked = checked or _check_unshared(owner)
                self._arrange_anew(owner, known, group, labels)
        if not same:
            self._entries = dict(state)

    def _names(self, owner: Owner, known: _Group, group: dict[str, Any]) -> list[str]:
        """Return names for a group whose list of parameters was changed."""
        params, given = group["params"], group.get("param_names", known.names)
        if len(given) == len(params) and len(set(given)) == len(given):
            return list(given)
        had = dict(zip(map(id, known.params), known.names, strict=True))
        taken = {n for g in owner.param_groups if g is not group for n in g.get("param_names", ())}
        taken |= {had[id(p)] for p in params if id(p) in had}
        fresh = (f"param.{i}" for i in itertools.count() if f"param.{i}" not in taken)
        return [had.get(id(p)) or next(fresh) for p in params]

    def stretches(self, owner: Owner, index: int, wanted: Collection[int]) -> list[_Arranged]:
        """Return the stretches of group ``index``.

        Args:
            owner: the optimizer.
            index: the position of the group.
            wanted: identities of parameters; those without state get it.
        """
        known = self._groups[index]
        if known.bare:
            params = [p for p in known.params if id(p) in known.bare and p not in owner.state]
            fresh = {id(p) for p in params}.intersection(wanted)
            if fresh:
                group = owner.param_groups[index]
                known.arranged += self._made(owner, group, known.labels, fresh)
                known.bare -= fresh
        return known.arranged

    def forget(self) -> None:
        """Rearrange everything at the next check."""
        self._groups = []

    def _arrange_anew(
        self, owner: Owner, known: _Group, group: dict[str, Any], labels: list[str]
    ) -> None:
        """Move the current state into new stretches; check it before changing anything."""
        names = group["param_names"]
        kept: dict[int, dict[str, Any]] = {}
        for name, param, label in zip(names, group["params"], labels, strict=True):
            entry = owner.state.get(param)
            if not entry:
                owner.state.pop(param, None)  # created by reading the defaultdict
                continue
            wanted = owner.label_buffers(label)
            had = dict(zip(map(id, known.params), known.labels, strict=True)).get(id(param), label)
            if had != label and owner.label_buffers(had) != wanted:
                continue  # other buffers now: its state starts from zero
            check_entry(owner, name, param, group, entry, wanted)
            kept[id(param)] = entry
        for param in group["params"]:
            owner.state.pop(param, None)
        known.params, known.names, known.labels = list(group["params"]), list(names), labels
        known.arranged = self._made(owner, group, labels, set(kept), kept)
        known.bare = {id(p) for p in known.params if id(p) not in kept}

    def _made(
        self,
        owner: Owner,
        group: dict[str, Any],
        labels: Sequence[str],
        wanted: set[int],
        kept: Mapping[int, dict[str, Any]] | None = None,
    ) -> list[_Arranged]:
        """Create stretches for these parameters, with their entries, if any."""
        self._entries = None
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
        return owner._format(group, precision, name, size)  # pyright: ignore[reportPrivateUsage]

    return form


def _enter(
    owner: Owner,
    group: dict[str, Any],
    stretch: Stretch,
    label: str,
    kept: Mapping[int, dict[str, Any]],
) -> _Arranged:
    """Put the entries of a new stretch into ``optimizer.state``; reuses existing entry objects."""
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
    return _Arranged(stretch, label, _facts(stretch.params), names)


def _facts(params: Sequence[Tensor]) -> list[Any]:
    """Return what a stretch assumes about its parameters; cheap enough for every step."""
    here = locals_of(params)
    return [
        *map(Tensor.data_ptr, here),
        *map(Tensor.size, here),
        *map(Tensor.is_contiguous, here),
        *[t.dtype for t in here],
    ]


def _is_current(arranged: _Arranged, state: Mapping[Tensor, Any] | None) -> bool:
    """Whether a stretch holds the state of its parameters; ``None``: no entry was exchanged."""
    stretch = arranged.stretch
    entries = stretch.entries
    if state is not None and not all(map(operator.is_, map(state.get, stretch.params), entries)):
        return False
    found = [entry.get(name) for name in arranged.names for entry in entries]
    if not all(map(operator.is_, found, arranged.views)):
        return False
    if list(map(Tensor.data_ptr, arranged.here)) != arranged.places:
        return False  # value.data = other moves a tensor that stays the same object
    facts = _facts(stretch.params)
    if facts == arranged.facts:
        return True
    count = len(stretch.params)
    if facts[count:] != arranged.facts[count:] or not stretch.fits():
        return False
    arranged.facts = facts  # the same layout at another address
    stretch.moved()
    return True


def fill(
    stretch: Stretch,
    param: Tensor,
    mine: Mapping[str, Any],
    theirs: Mapping[str, Any],
    nonnegative: frozenset[str],
) -> None:
    """Copy the buffers of one parameter, converting their precision."""
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
    """Return a stored buffer as a flat tensor in full precision."""
    stored = entries[name]
    block = block_of(entries, name)
    if not block:
        return local(stored).reshape(-1)
    kept = Blockwise(not nonnegative, block)
    return kept.read((stored, entries[name + SCALE])).view(-1)[: local(param).numel()]


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

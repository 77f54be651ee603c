"""Checkpoints of optimizers: state by parameter name, checked whole before it is used."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from anyorder.engine.stretches import SCALE
from anyorder.hyper import Hyper, HyperError
from anyorder.model.sharding import is_sharded, local
from anyorder.optimizer.entry import STEP, check_entry
from anyorder.optimizer.options import RECORD, Checked, check_together
from anyorder.optimizer.record import (
    CheckpointError,
    checked_record,
    load_record,
    record_of,
    without_clocks,
)
from anyorder.optimizer.record import Owner as RecordOwner
from anyorder.optimizer.state import Owner as StateOwner
from anyorder.optimizer.state import StateLayout
from anyorder.rules import Rule

#: What a group keeps when it takes over the settings of a saved one: precision is a choice of the
#: run, not of the method.
_OWN = ("params", "param_names", "state", "state_block", RECORD)


class Owner(StateOwner, RecordOwner, Protocol):
    """What is needed of an optimizer."""

    hypers: ClassVar[dict[str, Hyper]]
    rules: ClassVar[Mapping[str, tuple[Rule, ...]]]
    _layout: StateLayout
    _checked: Checked


# Saving -------------------------------------------------------------------------------------------


def saved(optimizer: Owner) -> dict[str, Any]:
    """The state dict of torch.optim, whose groups carry names, with our own record beside it.

    The record lies in the first group too: distributed checkpoints keep state and groups alone.
    Tensors are copied, so that a file holds each once.
    """
    params = [p for group in optimizer.param_groups for p in group["params"]]
    place = {id(param): index for index, param in enumerate(params)}
    state: dict[int, dict[str, Any]] = {}
    for param, entry in optimizer.state.items():
        if id(param) in place:
            state[place[id(param)]] = {
                key: value.clone() if isinstance(value, Tensor) else copy.deepcopy(value)
                for key, value in entry.items()
            }
    groups = [
        {
            **{k: copy.deepcopy(v) for k, v in group.items() if k != "params"},
            "params": [place[id(p)] for p in group["params"]],
        }
        for group in optimizer.param_groups
    ]
    record = record_of(optimizer, _nonfinite(optimizer))
    for index, group in enumerate(groups):
        group[RECORD] = {} if index else without_clocks(record)
    return {"state": dict(sorted(state.items())), "param_groups": groups, RECORD: record}


def _nonfinite(optimizer: Owner) -> list[str]:
    """Which tensors hold NaN or Inf by right, as ``name/buffer``; elsewhere they mean damage."""
    names = _unwrapped([group["param_names"] for group in optimizer.param_groups])
    return [
        f"{name}/{key}"
        for called, group in zip(names, optimizer.param_groups, strict=True)
        for name, param in zip(called, group["params"], strict=True)
        for key, value in optimizer.state.get(param, {}).items()
        if isinstance(value, Tensor) and not _finite(value)
    ]


def _finite(value: Tensor) -> bool:
    return is_sharded(value) or not value.is_floating_point() or bool(value.isfinite().all())


# Loading ------------------------------------------------------------------------------------------


def load_into(optimizer: Owner, state_dict: Any) -> None:
    """Check ``state_dict`` against ``optimizer``, then take over its tensors and settings."""
    record = checked_record(optimizer, state_dict)
    groups = _matched_groups(optimizer, state_dict["param_groups"])
    entries = _entries(groups, state_dict["state"])
    settings = [_settings(optimizer, mine, theirs) for mine, theirs in _pairs(optimizer, groups)]
    _check_together(optimizer, settings)
    _check_entries(optimizer, settings, entries, record)
    order = [list(map(id, state_dict["param_groups"])).index(id(group)) for group in groups]
    load_record(optimizer, {**record, "order": order}, settings)
    # From here on nothing can fail.
    names = _unwrapped([group["param_names"] for group in optimizer.param_groups])
    for group, chosen, called in zip(optimizer.param_groups, settings, names, strict=True):
        group.update(chosen)
        for name, param in zip(called, group["params"], strict=True):
            entry = entries.get(name)
            if entry is None:
                optimizer.state.pop(param, None)
            else:
                optimizer.state[param] = _own(entry, param)
    layout = optimizer._layout  # pyright: ignore[reportPrivateUsage]
    layout.forget()
    optimizer._checked.accept(optimizer.param_groups)  # pyright: ignore[reportPrivateUsage]
    with torch.no_grad():
        layout.current(optimizer)
    answer = optimizer._answer  # pyright: ignore[reportPrivateUsage]
    answer.restore(bool(record.get("answer", False)))


def _own(entry: Mapping[str, Any], param: Tensor) -> dict[str, Any]:
    """An entry that shares nothing with the one given."""
    return {
        key: value.detach().to(local(param).device, copy=True)
        if isinstance(value, Tensor) and not (key == STEP or is_sharded(value))
        else copy.deepcopy(value.detach() if isinstance(value, Tensor) else value)
        for key, value in entry.items()
    }


def _pairs(optimizer: Owner, groups: Sequence[Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return list(zip(optimizer.param_groups, groups, strict=True))


def _names(group: Mapping[str, Any]) -> list[str]:
    names: Any = group.get("param_names")
    listed = isinstance(names, (list, tuple)) and all(isinstance(n, str) for n in names)  # pyright: ignore
    params: Any = group.get("params")
    if not listed or not isinstance(params, (list, tuple)) or len(params) != len(names):  # pyright: ignore
        raise CheckpointError("a parameter group of the checkpoint lacks names for its parameters")
    return list(names)


def _unwrapped(groups: Sequence[Sequence[str]]) -> list[list[str]]:
    """Names as they are without a wrapper around the whole model, such as DDP's ``module.``."""
    whole = all(name.startswith("module.") for names in groups for name in names)
    return [[n.removeprefix("module.") if whole else n for n in names] for names in groups]


def _matched_groups(optimizer: Owner, given: Sequence[Any]) -> list[dict[str, Any]]:
    """The saved groups in the order of the optimizer's own."""
    mine = [
        frozenset(names) for names in _unwrapped([g["param_names"] for g in optimizer.param_groups])
    ]
    theirs = [frozenset(names) for names in _unwrapped([_names(group) for group in given])]
    missing = sorted(frozenset[str]().union(*mine) - frozenset[str]().union(*theirs))
    foreign = sorted(frozenset[str]().union(*theirs) - frozenset[str]().union(*mine))
    if missing or foreign:
        raise CheckpointError(
            "the checkpoint is for other parameters: "
            + (f"it lacks {', '.join(missing[:5])}" if missing else "")
            + ("; " if missing and foreign else "")
            + (f"it has {', '.join(foreign[:5])}, unknown here" if foreign else "")
        )
    if sorted(map(sorted, mine)) != sorted(map(sorted, theirs)):
        raise CheckpointError(
            "the checkpoint divides the parameters into other groups; make the optimizer with the "
            f"same groups ({[len(g) for g in theirs]} parameters, here {[len(g) for g in mine]})"
        )
    return [given[theirs.index(names)] for names in mine]


def _entries(
    groups: Sequence[Mapping[str, Any]], state: Mapping[Any, Any]
) -> dict[str, Mapping[str, Any]]:
    """The saved entries by parameter name."""
    found: dict[str, Mapping[str, Any]] = {}
    places = [index for group in groups for index in group["params"]]
    if not all(isinstance(i, (int, str)) for i in places) or len(set(places)) != len(places):
        raise CheckpointError(f"params: expected a number of its own for each, got {places[:9]}")
    for group, names in zip(groups, _unwrapped([_names(g) for g in groups]), strict=True):
        for index, name in zip(group["params"], names, strict=True):
            if index in state:
                if not isinstance(state[index], Mapping):
                    raise CheckpointError(f"expected the state of {name} to be a dict")
                found[name] = state[index]
    strangers = [key for key in state if key not in set(places)]
    if strangers:
        raise CheckpointError(
            f"the checkpoint holds state of {strangers[:5]}, which its groups do not name"
        )
    return found


def _settings(
    optimizer: Owner, mine: Mapping[str, Any], theirs: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings that a group takes over, checked."""
    found = {k: copy.deepcopy(v) for k, v in theirs.items() if k not in _OWN}
    missing = [n for n in optimizer.hypers if n not in found and n not in _OWN]
    if missing:
        raise CheckpointError(f"a parameter group of the checkpoint lacks {', '.join(missing)}")
    try:
        for name, declared in optimizer.hypers.items():
            if name in found:
                declared.check(name, found[name])
    except HyperError as error:
        raise CheckpointError(f"a parameter group of the checkpoint: {error}") from error
    return found


def _check_together(optimizer: Owner, settings: Sequence[Mapping[str, Any]]) -> None:
    """Settings fit each other. Precision and rounding, which depend on the run, need not."""
    mine, run = optimizer.param_groups, {"state": "fp32", "stochastic_rounding": False}
    optimizer.param_groups = [
        {**group, **chosen, **run} for group, chosen in zip(mine, settings, strict=True)
    ]
    try:
        check_together(optimizer, optimizer.hypers)
    except HyperError as error:
        raise CheckpointError(f"a parameter group of the checkpoint: {error}") from error
    finally:
        optimizer.param_groups = mine


def _check_entries(
    optimizer: Owner,
    settings: Sequence[Mapping[str, Any]],
    entries: Mapping[str, Mapping[str, Any]],
    record: Mapping[str, Any],
) -> None:
    """Each entry fits its parameter, under the settings that come with it."""
    excused: Any = record.get("nonfinite", [])
    names = _unwrapped([group["param_names"] for group in optimizer.param_groups])
    for mine, called, chosen in zip(optimizer.param_groups, names, settings, strict=True):
        group = {**mine, **chosen}
        labels = optimizer.labels(group)
        for name, param, label in zip(called, mine["params"], labels, strict=True):
            if name not in entries:
                continue
            entry = entries[name]
            buffers = optimizer.label_buffers(label)
            check_entry(optimizer, name, param, group, entry, buffers, CheckpointError)
            kept = {str(key).removesuffix(SCALE) for key in entry}
            known = {STEP, *optimizer.counters, *optimizer.slots, *optimizer.label_buffers(label)}
            if foreign := sorted((kept - known) & _all_buffers(optimizer)):
                raise CheckpointError(
                    f"the state of {name} holds {foreign}; expected {sorted(known)}"
                )
            for key in buffers:
                _check_numbers(optimizer, key, name, entry, f"{name}/{key}" in excused)


def _all_buffers(optimizer: Owner) -> set[str]:
    return {b for label in optimizer.rules for b in optimizer.label_buffers(label)}


def _check_numbers(
    optimizer: Owner, key: str, name: str, entry: Mapping[str, Any], excused: bool
) -> None:
    for part in (key, key + SCALE):
        value = entry.get(part)
        if isinstance(value, Tensor) and not excused and not _finite(local(value)):
            raise CheckpointError(f"{part} of {name} holds NaN or Inf; the file is damaged")
    negative = entry[key + SCALE] if key + SCALE in entry else entry[key]
    if key in optimizer.nonnegative or key + SCALE in entry:
        here = local(negative)
        if here.numel() and bool((here < 0).any()):
            raise CheckpointError(f"{key} of {name} holds negative numbers; the file is damaged")

"""Checkpoints of optimizers: state by parameter name, checked whole before it is used."""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from anyorder.engine import Engine
from anyorder.engine.stretches import SCALE
from anyorder.errors import AnyOrderError
from anyorder.hyper import Hyper, HyperError
from anyorder.model.sharding import is_sharded, local
from anyorder.optimizer.answer import Answer
from anyorder.optimizer.options import RECORD, Checked, check_together
from anyorder.optimizer.state import STEP, Slot, StateLayout, check_entry
from anyorder.oracle.ledger import BudgetError, Calls

#: Raised when the meaning of a saved state changes.
FORMAT = 2
_KEY = RECORD
#: Stands among what is not finite for the numbers of a method's own.
_EXTRA = "record"
#: What a group keeps when it takes over the settings of a saved one: precision is a choice of the
#: run, not of the method.
_OWN = ("params", "param_names", "state", "state_block", _KEY)


class CheckpointError(AnyOrderError, ValueError):
    """A saved state that does not fit. Raised before anything is changed."""


class Owner(Protocol):
    """What is needed of an optimizer."""

    hypers: ClassVar[dict[str, Hyper]]
    state: Any
    param_groups: list[dict[str, Any]]
    steps: int
    seed: int
    calls: Calls
    engine: Engine
    _layout: StateLayout
    _checked: Checked
    _answer: Answer

    @property
    def needs(self) -> frozenset[str]: ...  # noqa: D102

    @property
    def slots(self) -> Mapping[str, Slot]: ...  # noqa: D102

    @property
    def counters(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def nonnegative(self) -> frozenset[str]: ...  # noqa: D102

    def labels(self, group: dict[str, Any]) -> list[str]: ...  # noqa: D102
    def label_buffers(self, label: str) -> tuple[str, ...]: ...  # noqa: D102
    def precision_of(self, group: Mapping[str, Any], param: Tensor) -> Any: ...  # noqa: D102
    def check_group(self, group: dict[str, Any]) -> None: ...  # noqa: D102
    def extra_state(self) -> dict[str, Any]: ...  # noqa: D102
    def load_extra_state(self, extra: Mapping[str, Any]) -> None: ...  # noqa: D102


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
    record = _record(optimizer)
    for index, group in enumerate(groups):
        group[_KEY] = {} if index else _without_clocks(record)
    return {"state": dict(sorted(state.items())), "param_groups": groups, _KEY: record}


def _record(optimizer: Owner) -> dict[str, Any]:
    extra = optimizer.extra_state()
    return {
        "format": FORMAT,
        "method": type(optimizer).__name__,
        "steps": optimizer.steps,
        "seed": optimizer.seed,
        "calls": optimizer.calls.to_dict(),
        "work": dict(optimizer.engine.work),
        "answer": optimizer._answer.shown,  # pyright: ignore[reportPrivateUsage]
        "nonfinite": [*_nonfinite(optimizer), *([_EXTRA] if _holds_nonfinite(extra) else [])],
        **extra,
    }


def _without_clocks(record: dict[str, Any]) -> dict[str, Any]:
    """The record as groups carry it: equal runs have equal groups."""
    found = copy.deepcopy(record)
    for name in ("seconds", "peak_bytes"):
        found["calls"].pop(name, None)
    return found


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


def _holds_nonfinite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_nonfinite, value.values()))  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, (list, tuple)):
        return any(map(_holds_nonfinite, value))  # pyright: ignore[reportUnknownArgumentType]
    return isinstance(value, float) and not math.isfinite(value)


# Loading ------------------------------------------------------------------------------------------


def load_into(optimizer: Owner, state_dict: Any) -> None:
    """Check ``state_dict`` against ``optimizer``, then take over its tensors and settings."""
    record = _checked_record(optimizer, state_dict)
    groups = _matched_groups(optimizer, state_dict["param_groups"])
    entries = _entries(groups, state_dict["state"])
    settings = [_settings(optimizer, mine, theirs) for mine, theirs in _pairs(optimizer, groups)]
    _check_together(optimizer, settings)
    _check_entries(optimizer, settings, entries, record)
    order = [list(map(id, state_dict["param_groups"])).index(id(group)) for group in groups]
    _load_extra(optimizer, {**record, "order": order}, settings)
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


def number(
    extra: Mapping[str, Any],
    value: Any,
    what: str,
    *,
    least: float | None = None,
    most: float | None = None,
    whole: bool = False,
) -> Any:
    """``value``, which has to be a number, for methods that read their own record.

    Args:
        extra: the record; it says whether numbers in it may be NaN or infinite.
        value: the number.
        what: its name, for the message.
        least: lower bound.
        most: upper bound.
        whole: whether it has to be a whole number.

    Raises:
        CheckpointError: it is none, or outside the bounds.
    """
    fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if fits and not math.isfinite(value):
        fits = _EXTRA in extra.get("nonfinite", ())
    elif fits:
        fits = (least is None or value >= least) and (most is None or value <= most)
    if not fits:
        raise CheckpointError(f"{what}: expected a number, got {value!r}; the file is damaged")
    return value


def numbers(extra: Mapping[str, Any], values: Any, what: str, count: int | None) -> list[Any]:
    """``values``, which has to be a list of ``count`` numbers (any number of them for None)."""
    if not isinstance(values, (list, tuple)) or count not in (None, len(values)):  # pyright: ignore
        raise CheckpointError(f"{what}: expected {count or 'a list of'} numbers, got {values!r}")
    return [number(extra, value, what) for value in values]  # pyright: ignore


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


def _checked_record(optimizer: Owner, state_dict: Any) -> dict[str, Any]:
    """Our own record, or what can stand for it."""
    parts = ("state", "param_groups")
    if (
        not isinstance(state_dict, Mapping)
        or not isinstance(state_dict.get("state"), Mapping)  # pyright: ignore
        or not isinstance(state_dict.get("param_groups"), Sequence)  # pyright: ignore
    ):
        raise CheckpointError(
            f"expected the state_dict() of an optimizer, with {' and '.join(parts)}; this is not "
            "one"
        )
    groups: Any = state_dict["param_groups"]  # pyright: ignore
    if not all(isinstance(group, Mapping) for group in groups):
        raise CheckpointError("expected every parameter group of the checkpoint to be a dict")
    found: Any = state_dict.get(_KEY)  # pyright: ignore
    for group in groups:
        found = found if found is not None else group.get(_KEY) or None
    if found is None and all("param_names" in group for group in groups):
        return _substitute(optimizer, state_dict)
    if not isinstance(found, Mapping):
        raise CheckpointError(
            "expected a state_dict() saved by this package; this one was saved by another library "
            "(its state means other things, so nothing was loaded)"
        )
    record: dict[str, Any] = dict(found)  # pyright: ignore
    if not (isinstance(record.get("format"), int) and record["format"] == FORMAT):
        raise CheckpointError(
            f"expected checkpoint format {FORMAT}, got {record.get('format')!r}; see the changelog"
        )
    mine = type(optimizer).__name__
    if not (isinstance(record.get("method"), str) and record["method"] == mine):
        raise CheckpointError(f"expected the state of {mine}, got that of {record.get('method')}")
    if not isinstance(record.get("answer", False), bool):
        raise CheckpointError(f"answer: expected True or False, got {record['answer']!r}")
    record["steps"] = _whole(record, "steps", least=0)
    record["seed"] = _whole(record, "seed")
    excused: Any = record.setdefault("nonfinite", [])
    if not isinstance(excused, (list, tuple)) or not all(isinstance(n, str) for n in excused):  # pyright: ignore
        raise CheckpointError(f"nonfinite: expected names of tensors, got {excused!r}")
    _check_calls(record.get("calls"))
    work: Any = record.get("work", {})
    if not isinstance(work, Mapping) or not all(isinstance(n, int) for n in work.values()):  # pyright: ignore
        raise CheckpointError(f"work: expected counts by rule, got {work!r}")
    return record


def _substitute(optimizer: Owner, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """A record for a checkpoint of which only state and settings were kept."""
    if optimizer.needs != {"grad"} or optimizer.extra_state():
        raise CheckpointError(
            f"the checkpoint lacks the record of {type(optimizer).__name__} (seed, counts, numbers "
            "of its own), which a flattened or stripped state dict loses; save the state_dict() as "
            "it is"
        )
    counts = [entry.get(STEP, 0) for entry in state_dict["state"].values()]
    steps = max((int(c) for c in counts if isinstance(c, (int, float, Tensor))), default=0)
    return {"steps": steps, "seed": optimizer.seed, "calls": optimizer.calls.to_dict()}


def _whole(record: Mapping[str, Any], name: str, least: int | None = None) -> int:
    value = record.get(name)
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise CheckpointError(f"{name}: expected a whole number, got {value!r}") from None
    if least is not None and not least <= number < 2**63:
        raise CheckpointError(f"{name}: expected a count from {least} on, got {number}")
    return number


def _check_calls(calls: Any) -> None:
    if not isinstance(calls, Mapping):
        raise CheckpointError(f"calls: expected counts by kind, got {calls!r}")
    for name, count in calls.items():  # pyright: ignore
        number = isinstance(count, (int, float)) and not isinstance(count, bool)
        whole = number and (name == "seconds" or isinstance(count, int))
        if not whole or not 0 <= count < 2**63:  # nor NaN
            raise CheckpointError(f"calls: expected a count >= 0 of {name}, got {count!r}")
    try:
        Calls().update(dict(calls))  # pyright: ignore
    except BudgetError as error:
        raise CheckpointError(f"calls: {error}") from error


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
            check_entry(optimizer, name, param, group, entry, buffers, CheckpointError)  # type: ignore[arg-type]
            kept = {k.removesuffix(SCALE) if isinstance(k, str) else k for k in entry}  # pyright: ignore
            known = {STEP, *optimizer.counters, *optimizer.slots, *optimizer.label_buffers(label)}
            if foreign := sorted((kept - known) & _all_buffers(optimizer)):
                raise CheckpointError(
                    f"the state of {name} holds {foreign}; expected {sorted(known)}"
                )
            for key in buffers:
                _check_numbers(optimizer, key, name, entry, f"{name}/{key}" in excused)


def _all_buffers(optimizer: Owner) -> set[str]:
    return {b for label in optimizer.rules for b in optimizer.label_buffers(label)}  # type: ignore[attr-defined]


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


def _load_extra(
    optimizer: Owner, record: Mapping[str, Any], settings: Sequence[Mapping[str, Any]]
) -> None:
    """Take over the record, or leave all of it as it was."""
    before = copy.deepcopy(optimizer.extra_state())
    try:
        first = dict(settings[0]) if settings else {}
        optimizer.load_extra_state(copy.deepcopy({**record, "settings": first}))
    except Exception as error:
        optimizer.load_extra_state(before)
        raise CheckpointError(
            f"the record of {type(optimizer).__name__} cannot be read "
            f"({type(error).__name__}: {error}); the file is damaged"
        ) from error
    optimizer.calls.update(dict(record["calls"]))
    optimizer.steps, optimizer.seed = record["steps"], record["seed"]
    optimizer.engine.work = dict(record.get("work", optimizer.engine.work))

"""Checkpoints of optimizers: state by parameter name, checked whole before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from anyorder.engine.formats import Blockwise
from anyorder.engine.stretches import SCALE, Stretch
from anyorder.errors import AnyOrderError
from anyorder.model.sharding import local

if TYPE_CHECKING:
    from anyorder.optimizer import Optimizer

#: Raised when the meaning of a saved state changes.
FORMAT = 1
_KEY = "anyorder"
#: What a group keeps when it takes over the settings of a saved one: precision is a choice of the
#: run, not of the method.
_OWN = ("params", "param_names", "state", "state_block")


class CheckpointError(AnyOrderError, ValueError):
    """A saved state that does not fit. Raised before anything is changed."""


def saved(plain: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """The state dict of torch.optim, whose groups carry names, with our own record beside it.

    Tensors that are stretches of a shared buffer are copied, so that a file holds each once.
    """
    state = {
        index: {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in entries.items()
        }
        for index, entries in plain["state"].items()
    }
    return {**plain, "state": state, _KEY: {"format": FORMAT, **extra}}


def load_into(optimizer: Optimizer, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Check ``state_dict`` against ``optimizer``, then copy its tensors and settings into it.

    Returns:
        Our own record, as given to :func:`saved`.
    """
    extra = _checked_header(optimizer, state_dict)
    groups = _matched_groups(optimizer, state_dict["param_groups"])
    by_name: dict[str, dict[str, Any]] = {}
    for group in groups:
        for index, name in zip(group["params"], group["param_names"], strict=True):
            if index in state_dict["state"]:
                by_name[name] = state_dict["state"][index]
    _check_state(optimizer, by_name)
    for position, (group, found) in enumerate(zip(optimizer.param_groups, groups, strict=True)):
        group.update({k: v for k, v in found.items() if k not in _OWN})
        names = dict(zip(group["params"], group["param_names"], strict=True))
        held = [p for p in group["params"] if names[p] in by_name]
        for param in group["params"]:
            if param in optimizer.state and names[param] not in by_name:
                _reset(optimizer.state[param])
        for stretch in optimizer._arranged(position, held):  # pyright: ignore[reportPrivateUsage]
            for param, mine in zip(stretch.params, stretch.entries, strict=True):
                if names[param] in by_name:
                    _fill(stretch, param, mine, by_name[names[param]], optimizer.nonnegative)
    return extra


def _fill(
    stretch: Stretch,
    param: Tensor,
    mine: dict[str, Any],
    theirs: Mapping[str, Any],
    nonnegative: frozenset[str],
) -> None:
    """Take over the state of one parameter, in whatever precision it was kept."""
    mine["step"] = theirs["step"]
    for name, form in stretch.formats.items():
        same = _block(theirs, name) == form.block
        for kept in [key for key in mine if same and key in (name, name + SCALE)]:
            mine[kept].copy_(theirs[kept])
        if same:
            continue
        values = _values(theirs, name, param, name in nonnegative)
        if form.block:
            stretch.fill_(name, values)
        else:
            here = local(mine[name])
            here.copy_(values.view(here.shape))


def _block(entries: Mapping[str, Any], name: str) -> int:
    """Elements per scale of a saved buffer; 0 if it was not kept in 8 bits."""
    return int(entries[name].shape[1]) if name + SCALE in entries else 0


def _values(entries: Mapping[str, Any], name: str, param: Tensor, nonnegative: bool) -> Tensor:
    """A saved buffer, flat, as its method knew it."""
    stored = entries[name]
    if not _block(entries, name):
        return local(stored).reshape(-1)
    form = Blockwise(not nonnegative, _block(entries, name))
    values = form.read((stored, entries[name + SCALE])).view(-1)
    return values[: local(param).numel()]


def _reset(entries: dict[str, Any]) -> None:
    for name, value in entries.items():
        if isinstance(value, Tensor) and name + SCALE not in entries:
            value.zero_()  # codes mean nothing where their scales are zero
    entries["step"] = 0


def _checked_header(optimizer: Optimizer, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    parts = ("state", "param_groups")
    if not isinstance(state_dict, Mapping) or any(part not in state_dict for part in parts):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise CheckpointError("expected the state_dict() of an optimizer; this is not one")
    extra = state_dict.get(_KEY)
    if not isinstance(extra, Mapping):
        raise CheckpointError(
            "expected a state_dict() saved by this package; this one was saved by another library "
            "(its state means other things, so nothing was loaded)"
        )
    if extra.get("format") != FORMAT:
        raise CheckpointError(
            f"expected checkpoint format {FORMAT}, got {extra.get('format')!r}; see the changelog"
        )
    mine = type(optimizer).__name__
    if extra.get("method") != mine:
        raise CheckpointError(f"expected the state of {mine}, got that of {extra.get('method')}")
    return dict(extra)


def _matched_groups(optimizer: Optimizer, given: Any) -> list[dict[str, Any]]:
    mine = [set(group["param_names"]) for group in optimizer.param_groups]
    theirs = [set(group.get("param_names", ())) for group in given]
    missing = sorted(set().union(*mine) - set().union(*theirs))
    foreign = sorted(set().union(*theirs) - set().union(*mine))
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


def _check_state(optimizer: Optimizer, by_name: Mapping[str, Mapping[str, Any]]) -> None:
    params: dict[str, Tensor] = {}
    buffers: dict[str, set[str]] = {}
    for group in optimizer.param_groups:
        for name, param in zip(group["param_names"], group["params"], strict=True):
            params[name] = param
            buffers[name] = {"step", *optimizer.buffers_of(group)}
    for name, entries in by_name.items():
        given, expected = {key.removesuffix(SCALE) for key in entries}, buffers[name]
        if given != expected:
            raise CheckpointError(
                f"the state of {name} holds {sorted(given)}; expected {sorted(expected)}"
            )
        for key, value in entries.items():
            if isinstance(value, Tensor):
                _check_buffer(key, name, value, entries, params[name])


def _check_buffer(
    key: str, name: str, value: Tensor, entries: Mapping[str, Any], param: Tensor
) -> None:
    block = _block(entries, key.removesuffix(SCALE))
    blocks = -(-local(param).numel() // block) if block else 0
    shape = tuple(param.shape) if not block else (blocks, 1 if key.endswith(SCALE) else block)
    if tuple(value.shape) != shape:
        raise CheckpointError(
            f"{key} of {name} has shape {tuple(value.shape)}; expected {shape} for a parameter of "
            f"shape {tuple(param.shape)}"
        )
    if not bool(torch.isfinite(local(value)).all()):
        raise CheckpointError(f"{key} of {name} holds NaN or Inf; the file is damaged")

"""Converts parameters in any accepted form to named groups."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from anyorder.errors import AnyOrderError

#: Names that torch uses for a module inside a wrapper: ``torch.compile``, FSDP, activation
#: checkpointing. They are unique to wrappers, so a name alone identifies them.
_INSIDE = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_UNORDERED = "expected parameters in a fixed order; pass a list, not a set"


class ParamsError(AnyOrderError, ValueError):
    """Parameters that a method does not support."""


class ParamsTypeError(AnyOrderError, TypeError):
    """An argument that is not a collection of parameters."""


def named_groups(params: Any, taken: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """Return groups of named parameters from a module, tensors, named tensors or groups of these.

    Args:
        params: parameters in any accepted form, including the groups of another optimizer, whose
            ``param_names`` are kept.
        taken: existing groups, whose parameters and names must not be repeated.

    Returns:
        Groups whose ``params`` is a list of ``(name, tensor)``, with all other keys unchanged.

    Raises:
        ParamsError: parameters are empty, repeated, not floating-point, complex, sparse or not
            leaves, or only some of a group have names.
        ParamsTypeError: ``params`` has an unsupported type.
    """
    seen = {id(p) for group in taken for p in group["params"]}
    names = {name for group in taken for name in group.get("param_names", ())}
    if isinstance(params, (set, frozenset)):
        raise ParamsTypeError(_UNORDERED)
    if isinstance(params, Mapping):
        raise ParamsTypeError(
            "expected a module or a list of parameters, got a dict; write Optimizer([{'params': "
            "...}]) for a group, or Optimizer(named.items()) for parameters by name"
        )
    if isinstance(params, (Tensor, str, bytes)) or not isinstance(params, (nn.Module, Iterable)):
        raise ParamsTypeError(
            f"expected a module or a list of parameters, got {type(params).__name__}; write "
            "Optimizer(model) or Optimizer([parameter])"
        )
    given: Any = params if isinstance(params, nn.Module) else list(params)  # pyright: ignore
    several = isinstance(given, list) and given and all(isinstance(g, Mapping) for g in given)  # pyright: ignore
    groups: list[Any] = given if several else [{"params": given}]
    result: list[dict[str, Any]] = []
    for group in groups:
        if "params" not in group:
            raise ParamsError("a parameter group is a dict with the key 'params'")
        pairs = _named(group["params"], group.get("param_names"), taken=names)
        for name, param in pairs:
            _check(name, param, seen, names)
            seen.add(id(param))
            names.add(name)
        settings = {key: value for key, value in group.items() if key != "param_names"}
        result.append({**settings, "params": pairs})
    if not any(p.requires_grad for group in result for _, p in group["params"]) and not taken:
        raise ParamsError("no parameter is trainable; set requires_grad=True on some of them")
    return result


def module_parameters(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the parameters of a module by the names they have without wrappers.

    Wrappers are ``torch.compile``, ``DataParallel``, ``DistributedDataParallel``,
    ``FullyShardedDataParallel`` and activation checkpointing. Checkpoints are therefore the same
    with and without them.
    """
    parallel = {
        f"{path}.module".lstrip(".")
        for path, owner in module.named_modules()
        if isinstance(owner, _PARALLEL)
    }
    return [(_unwrapped_name(name, parallel), p) for name, p in module.named_parameters()]


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside all of its outer wrappers."""
    names = ("module",) if isinstance(module, _PARALLEL) else _INSIDE
    inside = dict(module.named_children())
    for name in names:
        if name in inside:
            return unwrapped(inside[name])
    return module


def _unwrapped_name(name: str, parallel: Collection[str] = ()) -> str:
    """Remove wrappers from ``name``; ``parallel`` contains paths of modules in parallel wrappers.

    Without such a path, ``module`` may be the user's own name and is kept.
    """
    *words, last = name.split(".")
    kept = [
        word
        for depth, word in enumerate(words, 1)
        if word not in _INSIDE and ".".join(words[:depth]) not in parallel
    ]
    return ".".join((*kept, last))


def _named(params: Any, names: Any, taken: Collection[str]) -> list[tuple[str, Tensor]]:
    """Return pairs from the ``params`` of a group and its ``param_names``, if any.

    Parameters without a name are numbered by position, or by the next free number, since groups may
    be removed.
    """
    entries = _entries(params)
    if names is not None:
        entries = _with_names(entries, names)
    pairs: list[tuple[str, Tensor]] = []
    places = (f"param.{i}" for i in count(len(taken)) if f"param.{i}" not in taken)
    for entry in entries:
        name, param = entry if _is_pair(entry) else (next(places), entry)
        if not isinstance(param, Tensor) or not isinstance(name, str):
            raise ParamsTypeError(
                f"expected tensors or (name, tensor) pairs, got {type(entry).__name__}; if this is "
                "a module, pass it alone: Optimizer(model)"
            )
        pairs.append((_unwrapped_name(name), param))
    bare = [index for index, entry in enumerate(entries) if not _is_pair(entry)]
    if bare and len(bare) < len(entries):
        raise ParamsError(
            "expected a name for every parameter of a group or for none, got one without at "
            f"position {bare[0]}; write (name, tensor) there as well"
        )
    return pairs


def _entries(params: Any) -> list[Any]:
    if isinstance(params, nn.Module):
        return module_parameters(params)
    if isinstance(params, (set, frozenset)):
        raise ParamsTypeError(_UNORDERED)
    if not isinstance(params, Iterable):
        raise ParamsTypeError(
            f"expected the 'params' of a group to be a list of parameters, got "
            f"{type(params).__name__}"
        )
    entries: list[Any] = [params] if isinstance(params, Tensor) else list(params)  # pyright: ignore
    if not entries:
        raise ParamsError("expected at least one parameter, got an empty list")
    return entries


def _is_pair(entry: Any) -> bool:
    return isinstance(entry, tuple) and len(entry) == 2  # pyright: ignore


def _with_names(entries: Sequence[Any], names: Any) -> list[Any]:
    """Combine the parameters of a group with its ``param_names``."""
    if not isinstance(names, (list, tuple)):
        raise ParamsTypeError(
            f"param_names: expected a list of names, got {type(names).__name__}; write one name "
            "for each of 'params'"
        )
    listed: list[Any] = list(names)  # pyright: ignore
    if len(listed) != len(entries):
        raise ParamsError(
            f"param_names: expected {len(entries)} names, one for each of 'params', got "
            f"{len(listed)}"
        )
    for name, entry in zip(listed, entries, strict=True):
        if not isinstance(name, str):
            raise ParamsTypeError(f"param_names: expected strings, got {name!r}")
        if _is_pair(entry) and entry[0] != name:
            raise ParamsError(
                f"param_names: expected {entry[0]!r} as in 'params', got {name!r}; leave one of "
                "the two out"
            )
    return [e if _is_pair(e) else (n, e) for n, e in zip(listed, entries, strict=True)]


def _check(name: str, param: Tensor, seen: set[int], names: set[str]) -> None:
    if id(param) in seen:
        raise ParamsError(
            f"{name} appears twice; tied parameters are one parameter, pass it once "
            "(model.parameters() does)"
        )
    if name in names:
        raise ParamsError(f"two parameters have the name {name!r}; names must be unique")
    if param.is_complex():
        raise ParamsError(
            f"{name} is complex; expected real parameters. Keep torch.view_as_real(z) as the "
            "parameter and use torch.view_as_complex on it in the model"
        )
    # A module's integer parameters are quantised weights, which are always frozen and skipped.
    if not param.is_floating_point() and not isinstance(param, nn.Parameter):
        raise ParamsError(f"{name} has dtype {param.dtype}; expected a floating-point parameter")
    if param.layout is not torch.strided:
        raise ParamsError(f"{name} is sparse; expected a dense parameter")
    if not param.is_leaf:
        raise ParamsError(f"{name} was computed from other tensors; expected a leaf tensor")

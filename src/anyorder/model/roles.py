"""Roles of a module's parameters: hidden matrix, embedding, output layer, vector.

Methods with a matrix update (orthogonalised, normalised by rows) must know which of the
two-dimensional tensors are linear maps between hidden layers, and which are embeddings or the
output layer. Most of this follows from the module: types of layers, shared weights, names.

Example:
    >>> from torch import nn
    >>> from anyorder.model.roles import find_roles
    >>> model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9))
    >>> for name, assigned in find_roles(model).items():
    ...     print(name, assigned.role)
    0.weight embedding
    1.weight matrix
    1.bias vector
    2.weight head
    2.bias vector
"""

from __future__ import annotations

import fnmatch
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from torch import Tensor, nn

from anyorder.errors import AnyOrderError
from anyorder.model.params import module_parameters, unwrapped

Role = Literal["matrix", "convolution", "embedding", "head", "tied", "vector"]
ROLES: tuple[Role, ...] = get_args(Role)
#: The roles of linear maps between hidden layers.
HIDDEN: tuple[Role, ...] = ("matrix", "convolution")

#: Names that mark an output layer anywhere outside a repeated block.
_HEADS = {
    "head", "heads", "lm_head", "classifier", "score", "cls", "embed_out", "logits",
    "output_layer", "output_projection", "unembed", "unembedding",
}  # fmt: skip
#: Names that mark an output layer only as the first part of a path.
_FIRST_HEADS = {"fc", "out", "output", "readout"}
_TABLE = re.compile(r"(^|_)(pos|position|positional|embed|embedding|emb|token|tokens|table)(_|$)")
_MATRIX = re.compile(r"weight|proj|kernel|(^|_)w\d*(_|$)", re.IGNORECASE)
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)  # pyright: ignore[reportPrivateUsage]


class RoleError(AnyOrderError, ValueError):
    """An unknown role, one that a parameter cannot have, or a pattern without a match."""


class RoleTypeError(AnyOrderError, TypeError):
    """A ``roles`` argument of an unsupported type."""


class RoleWarning(UserWarning):
    """A role that is a guess, or that contradicts the module."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The role of one parameter in the model."""

    role: Role
    #: How the role was determined, in words.
    why: str
    #: The axis along which output units are counted.
    output: int = 0
    #: How many matrices are stacked along that axis (packed projections).
    pieces: int = 1
    #: Whether this is a guess that users should check.
    unsure: bool = False


@dataclass(frozen=True, slots=True)
class _Place:
    path: str
    owner: nn.Module
    attribute: str


def find_roles(
    module: nn.Module, patterns: Mapping[str, str] | None = None, *, guess: bool = True
) -> dict[str, Assignment]:
    """Return the role of every parameter of ``module``.

    The output layer is the first match among: a matrix shared with an embedding (``tied``), what
    ``get_output_embeddings()`` returns, a common name (``head``, ``lm_head``, ``classifier``, ...),
    the one linear layer with as many outputs as an embedding has rows, and the last linear layer in
    order of definition.

    Args:
        module: a model; wrappers such as ``DistributedDataParallel`` are skipped.
        patterns: roles by name pattern, such as ``{"blocks.*.gate": "vector"}``; the last pattern
            that matches a name overrides the detected role. If any pattern has the role ``head`` or
            ``tied``, patterns must name all such matrices.
        guess: whether to search for the output layer if no weight is shared.

    Returns:
        Assignments by parameter name (without wrappers), in order.

    Raises:
        RoleError: a role is unknown or impossible for the parameter, or a pattern has no match.
    """
    core = unwrapped(module)
    named = dict(module_parameters(module))
    places = _places(core)
    heads = _heads(core, places, guess=guess and not names_head(patterns or {}))
    found = {
        name: heads.get(id(param)) or _assigned(param, places[id(param)])
        for name, param in named.items()
    }
    return with_patterns(found, named, patterns or {})


def names_head(patterns: Mapping[str, str]) -> bool:
    """Whether the user names the output layer."""
    return bool({"head", "tied"} & set(patterns.values()))


def roles_by_shape(named: Mapping[str, Tensor]) -> dict[str, Assignment]:
    """Assign roles by shape alone: tensors with two or more axes are matrices, others vectors."""
    return {
        name: Assignment("matrix", "by its shape")
        if _axes(param) > 1
        else Assignment("vector", "by its shape")
        for name, param in named.items()
    }


def with_patterns(
    found: Mapping[str, Assignment], named: Mapping[str, Tensor], patterns: Mapping[str, str]
) -> dict[str, Assignment]:
    """Return the assignments with the user's changes.

    Warns:
        RoleWarning: an embedding or output layer is treated as a hidden matrix.

    Raises:
        RoleError: see :func:`find_roles`.
    """
    changed = dict(found)
    for pattern, role in patterns.items():
        if role not in ROLES:
            raise RoleError(f"roles[{pattern!r}]: expected one of {list(ROLES)}, got {role!r}")
        names = fnmatch.filter(changed, pattern)
        if not names:
            raise RoleError(
                f"roles[{pattern!r}]: no parameter name matches; names are "
                f"{', '.join(list(changed)[:8])}{', ...' * (len(changed) > 8)}"
            )
        for name in names:
            changed[name] = _stated(name, named[name], found[name], role)
    return changed


def as_matrices(tensor: Tensor, assigned: Assignment) -> Tensor:
    """View the tensor as its matrices, of shape ``(pieces, outputs, inputs)``."""
    rows = tensor.movedim(assigned.output, 0).flatten(1)
    return rows.reshape(assigned.pieces, rows.shape[0] // assigned.pieces, rows.shape[1])


def from_matrices(matrices: Tensor, like: Tensor, assigned: Assignment) -> Tensor:
    """The inverse of :func:`as_matrices`, in the shape of ``like``."""
    turned = like.movedim(assigned.output, 0)
    return matrices.reshape(turned.shape).movedim(0, assigned.output)


# Internals ---------------------------------------------------------------------------------


def _places(core: nn.Module) -> dict[int, list[_Place]]:
    """The places of each parameter; shared ones have several."""
    places: dict[int, list[_Place]] = {}
    for path, owner in core.named_modules():
        # Including duplicates of shared parameters, and of this module only.
        for attribute, param in owner.named_parameters(recurse=False, remove_duplicate=False):
            places.setdefault(id(param), []).append(_Place(path, owner, attribute))
    return places


def _assigned(param: Tensor, places: list[_Place]) -> Assignment:
    """The role of a parameter according to its layer, ignoring output layers."""
    place = places[0]
    owner, attribute = place.owner, place.attribute
    kind = type(owner).__name__
    if param.ndim < 2 or isinstance(owner, _NORMS):
        return Assignment("vector", f"{attribute} of {kind}")
    if any(_is_table(p) for p in places):
        return Assignment("embedding", f"{attribute} of {kind}", output=param.ndim - 1)
    if isinstance(owner, nn.modules.conv._ConvNd):  # pyright: ignore[reportPrivateUsage]
        return Assignment("convolution", f"kernel of {kind}", output=int(owner.transposed))
    if _linear(place):
        return Assignment("matrix", f"{attribute} of {kind}", output=_output_axis(owner))
    if isinstance(owner, nn.MultiheadAttention) and attribute == "in_proj_weight":
        return Assignment("matrix", f"packed query, key and value of {kind}", pieces=3)
    if isinstance(owner, nn.RNNBase) and attribute.startswith(("weight_ih", "weight_hh")):
        return Assignment(
            "matrix", f"packed gates of {kind}", pieces=len(param) // owner.hidden_size
        )
    if _axes(param) < 2:
        return Assignment("vector", f"{attribute} of {kind}, with one axis longer than 1")
    if _TABLE.search(attribute):
        return Assignment("embedding", f"{attribute} of {kind}, by its name", output=param.ndim - 1)
    if isinstance(owner, nn.Bilinear):
        return Assignment("matrix", f"{attribute} of {kind}")
    if param.ndim == 2:
        return Assignment("matrix", f"{attribute} of {kind}", unsure=not _MATRIX.search(attribute))
    return Assignment("vector", f"{attribute} of {kind}, more than two axes", unsure=True)


def _axes(param: Tensor) -> int:
    """Number of axes longer than one."""
    return sum(size != 1 for size in param.shape)


def _is_table(place: _Place) -> bool:
    return isinstance(place.owner, (nn.Embedding, nn.EmbeddingBag))


def _linear(place: _Place) -> bool:
    """Whether this is the weight of a linear layer of torch or another library."""
    owner = place.owner
    return place.attribute == "weight" and (
        isinstance(owner, nn.Linear)
        or (hasattr(owner, "in_features") and hasattr(owner, "out_features"))
        or type(owner).__name__ == "Conv1D"  # the linear layer of GPT-2 in transformers
    )


def _output_axis(owner: nn.Module) -> int:
    """Linear layers store (outputs, inputs); GPT-2's Conv1D stores (inputs, outputs)."""
    return int(type(owner).__name__ == "Conv1D")


# The output layer --------------------------------------------------------------------------


def _heads(
    core: nn.Module, places: Mapping[int, list[_Place]], *, guess: bool
) -> dict[int, Assignment]:
    """The output layers by parameter id."""
    tied = {
        key: Assignment("tied", f"shared by {' and '.join(p.path for p in where)}")
        for key, where in places.items()
        if any(_is_table(p) for p in where) and any(_linear(p) for p in where)
    }
    if tied or not guess:
        return tied
    linear = {
        key: where[0]
        for key, where in places.items()
        if _linear(where[0]) and not any(_is_table(p) for p in where)
    }
    told = _told_head(core, linear)
    if told is not None:
        return {told: _head(linear[told], "returned by get_output_embeddings()")}
    for candidates in (linear, _kernels(places)):
        named = _named_heads(core, candidates)
        if named:
            return {key: _head(candidates[key], "by its name") for key in named}
    return _head_by_order(core, linear or _kernels(places))


def _kernels(places: Mapping[int, list[_Place]]) -> dict[int, _Place]:
    conv = nn.modules.conv._ConvNd  # pyright: ignore[reportPrivateUsage]
    return {
        key: where[0]
        for key, where in places.items()
        if isinstance(where[0].owner, conv) and where[0].attribute == "weight"
    }


def _head(place: _Place, why: str, *, unsure: bool = False) -> Assignment:
    owner = place.owner
    axis = int(owner.transposed) if hasattr(owner, "transposed") else _output_axis(owner)  # type: ignore[arg-type]
    return Assignment("head", f"output layer: {why}", output=axis, unsure=unsure)


def _told_head(core: nn.Module, linear: Mapping[int, _Place]) -> int | None:
    """The output layer according to the model, as in the transformers library."""
    ask: Any = getattr(core, "get_output_embeddings", None)
    layer = ask() if callable(ask) else None
    key = id(getattr(layer, "weight", None))
    return key if key in linear else None


def _named_heads(core: nn.Module, candidates: Mapping[int, _Place]) -> list[int]:
    """Layers with a common name; the last one of each container."""
    last: dict[str, int] = {}
    for key, place in candidates.items():
        container = _head_container(core, place.path)
        if container is not None:
            last[container] = key
    return list(last.values())


def _head_container(core: nn.Module, path: str) -> str | None:
    """The part of a path that has the name of an output layer, outside repeated blocks."""
    words = path.split(".")
    for depth, word in enumerate(words):
        if word.isdigit():
            return None
        if word in _HEADS or (depth == 0 and word in _FIRST_HEADS):
            found = ".".join(words[: depth + 1])
            if isinstance(core.get_submodule(found), (nn.ModuleDict, nn.ModuleList)):
                return ".".join(words[: depth + 2])  # one output layer for each task
            return found
    return None


def _head_by_order(core: nn.Module, candidates: Mapping[int, _Place]) -> dict[int, Assignment]:
    """The only layer with as many outputs as there are tokens, otherwise the last one defined."""
    if not candidates:
        return {}
    tables = [m for m in core.modules() if isinstance(m, nn.Embedding)]
    rows = max((t.num_embeddings for t in tables), default=None)
    fitting = [k for k, p in candidates.items() if getattr(p.owner, "out_features", None) == rows]
    if rows is not None and len(fitting) == 1:
        why = f"as many outputs as the embedding has rows ({rows})"
        return {fitting[0]: _head(candidates[fitting[0]], why)}
    key = list(candidates)[-1]
    unsure = rows is not None and key not in fitting
    return {key: _head(candidates[key], "the last one defined", unsure=unsure)}


# Roles set by users ------------------------------------------------------------------------


def _stated(name: str, param: Tensor, found: Assignment, role: Role) -> Assignment:
    """Validate the role that a user sets."""
    if role != "vector" and param.ndim < 2:
        raise RoleError(
            f"{name} has shape {tuple(param.shape)} and cannot be a {role}; only tensors of two or "
            "more axes can. Write 'vector', or leave it out"
        )
    if role in HIDDEN and found.role in ("embedding", "head", "tied"):
        warnings.warn(
            f"{name} is treated as a hidden {role}, but the module says {found.role} "
            f"({found.why}); such layers usually train better with their own rule",
            RoleWarning,
            stacklevel=5,
        )
    if role == found.role:
        return replace(found, unsure=False)
    output = found.output if found.role in (*HIDDEN, "head") else 0
    if role == "embedding":
        output = param.ndim - 1
    return Assignment(
        role, "set by roles", output=output, pieces=found.pieces if role in HIDDEN else 1
    )


def unsure(assignments: Mapping[str, Assignment]) -> Iterator[str]:
    """Return one remark for each guess that users should check."""
    for name, assigned in assignments.items():
        if not assigned.unsure:
            continue
        if assigned.role == "vector":
            yield (
                f"{name} has more than two axes, so its matrix shape is unknown and it is "
                f"treated as a vector; write roles={{{name!r}: 'vector'}} if that is right, or "
                "'matrix' to flatten it to (first axis, all others)"
            )
        elif assigned.role == "matrix":
            yield (
                f"{name} is a bare tensor with two axes, treated as a hidden matrix; write "
                f"roles={{{name!r}: 'matrix'}} if it multiplies from the left or right, else "
                "'vector'"
            )
        else:
            yield (
                f"{name} is treated as the output layer ({assigned.why}) but does not have as many "
                "outputs as the embedding has rows; if the embedding is also the output layer, "
                f"write roles={{'NAME': 'tied', {name!r}: 'matrix'}}, else roles={{'NAME': 'head'}}"
            )

"""What each parameter of a module is for: hidden matrix, embedding, output layer, vector.

Methods that treat matrices as matrices (orthogonalised, normalised by rows) must know which of the
two-dimensional tensors are linear maps between hidden layers, and which are tables or the output
layer. The module knows most of it: types of layers, shared weights, names.

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

#: Names of output layers that are clear wherever they stand outside a repeated block.
_HEADS = {
    "head", "heads", "lm_head", "classifier", "score", "cls", "embed_out", "logits",
    "output_layer", "output_projection", "unembed", "unembedding",
}  # fmt: skip
#: Names that mean the output layer as the first part of a path only.
_FIRST_HEADS = {"fc", "out", "output", "readout"}
_TABLE = re.compile(r"(^|_)(pos|position|positional|embed|embedding|emb|token|tokens|table)(_|$)")
_MATRIX = re.compile(r"weight|proj|kernel|(^|_)w\d*(_|$)", re.IGNORECASE)
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)  # pyright: ignore[reportPrivateUsage]


class RoleError(AnyOrderError, ValueError):
    """A role that does not exist or that a parameter cannot have, or a pattern for nothing."""


class RoleTypeError(AnyOrderError, TypeError):
    """Something that says nothing about roles."""


class RoleWarning(UserWarning):
    """A role that was guessed, or that goes against what the module says."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """One parameter's place in the model."""

    role: Role
    #: In words, how that is known.
    why: str
    #: The axis along which output units are counted.
    output: int = 0
    #: How many matrices are stacked along that axis (packed projections).
    pieces: int = 1
    #: Whether this is a guess that users should look at.
    unsure: bool = False


@dataclass(frozen=True, slots=True)
class _Place:
    path: str
    owner: nn.Module
    attribute: str


def find_roles(
    module: nn.Module, patterns: Mapping[str, str] | None = None, *, guess: bool = True
) -> dict[str, Assignment]:
    """Tell the role of every parameter of ``module``.

    The output layer is, by the first of these that answers: a matrix shared with an embedding
    (``tied``), what ``get_output_embeddings()`` returns, a customary name (``head``, ``lm_head``,
    ``classifier``, ...), the one linear layer with as many outputs as an embedding has rows, the
    last linear layer in order of definition.

    Args:
        module: a model; wrappers such as ``DistributedDataParallel`` are looked through.
        patterns: roles by name pattern, such as ``{"blocks.*.gate": "vector"}``; the last pattern
            that matches a name wins over what was found. Who names a ``head`` or a ``tied`` matrix
            names all of them.
        guess: whether to look for the output layer, where no weight is shared.

    Returns:
        Assignments by the names that the parameters have before wrappers, in their order.

    Raises:
        RoleError: an unknown role, one that the parameter cannot have, or a pattern without match.
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
    """Whether the user says what the output layer is."""
    return bool({"head", "tied"} & set(patterns.values()))


def roles_by_shape(named: Mapping[str, Tensor]) -> dict[str, Assignment]:
    """Roles told by shape alone: two axes or more are a matrix, the rest are vectors."""
    return {
        name: Assignment("matrix", "by its shape")
        if _axes(param) > 1
        else Assignment("vector", "by its shape")
        for name, param in named.items()
    }


def with_patterns(
    found: Mapping[str, Assignment], named: Mapping[str, Tensor], patterns: Mapping[str, str]
) -> dict[str, Assignment]:
    """The assignments, changed where the user says otherwise.

    Warns:
        RoleWarning: an embedding or output layer is to be treated as a hidden matrix.

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
                f"roles[{pattern!r}]: no parameter has such a name; names are "
                f"{', '.join(list(changed)[:8])}{', ...' * (len(changed) > 8)}"
            )
        for name in names:
            changed[name] = _stated(name, named[name], found[name], role)
    return changed


def as_matrices(tensor: Tensor, assigned: Assignment) -> Tensor:
    """The tensor as the matrices it stands for, of shape ``(pieces, outputs, inputs)``."""
    rows = tensor.movedim(assigned.output, 0).flatten(1)
    return rows.reshape(assigned.pieces, rows.shape[0] // assigned.pieces, rows.shape[1])


def from_matrices(matrices: Tensor, like: Tensor, assigned: Assignment) -> Tensor:
    """The inverse of :func:`as_matrices`, in the shape of ``like``."""
    turned = like.movedim(assigned.output, 0)
    return matrices.reshape(turned.shape).movedim(0, assigned.output)


# Inside ------------------------------------------------------------------------------------


def _places(core: nn.Module) -> dict[int, list[_Place]]:
    """Where each parameter hangs, shared ones at each of their places."""
    places: dict[int, list[_Place]] = {}
    for path, owner in core.named_modules():
        # Shared ones at every place, and those of this module alone.
        for attribute, param in owner.named_parameters(recurse=False, remove_duplicate=False):
            places.setdefault(id(param), []).append(_Place(path, owner, attribute))
    return places


def _assigned(param: Tensor, places: list[_Place]) -> Assignment:
    """The role a parameter has by its layer, output layers aside."""
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
        return Assignment("vector", f"{attribute} of {kind}, all along one axis")
    if _TABLE.search(attribute):
        return Assignment("embedding", f"{attribute} of {kind}, by its name", output=param.ndim - 1)
    if isinstance(owner, nn.Bilinear):
        return Assignment("matrix", f"{attribute} of {kind}")
    if param.ndim == 2:
        return Assignment("matrix", f"{attribute} of {kind}", unsure=not _MATRIX.search(attribute))
    return Assignment("vector", f"{attribute} of {kind}, more than two axes", unsure=True)


def _axes(param: Tensor) -> int:
    """How many axes are longer than one."""
    return sum(size != 1 for size in param.shape)


def _is_table(place: _Place) -> bool:
    return isinstance(place.owner, (nn.Embedding, nn.EmbeddingBag))


def _linear(place: _Place) -> bool:
    """Whether this is the weight of a linear layer, of torch or of another library."""
    owner = place.owner
    return place.attribute == "weight" and (
        isinstance(owner, nn.Linear)
        or (hasattr(owner, "in_features") and hasattr(owner, "out_features"))
        or type(owner).__name__ == "Conv1D"  # the linear layer of GPT-2 in transformers
    )


def _output_axis(owner: nn.Module) -> int:
    """Linear layers keep (outputs, inputs); GPT-2's Conv1D keeps (inputs, outputs)."""
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
        return {told: _head(linear[told], "get_output_embeddings() names it")}
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
    """What the model itself calls its output layer, as models of transformers do."""
    ask: Any = getattr(core, "get_output_embeddings", None)
    layer = ask() if callable(ask) else None
    key = id(getattr(layer, "weight", None))
    return key if key in linear else None


def _named_heads(core: nn.Module, candidates: Mapping[int, _Place]) -> list[int]:
    """Layers with a customary name; of each container, the last one."""
    last: dict[str, int] = {}
    for key, place in candidates.items():
        container = _head_container(core, place.path)
        if container is not None:
            last[container] = key
    return list(last.values())


def _head_container(core: nn.Module, path: str) -> str | None:
    """The part of a path that is called like an output layer, outside repeated blocks."""
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
    """The one layer with as many outputs as there are tokens, else the last one defined."""
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


# What users say ----------------------------------------------------------------------------


def _stated(name: str, param: Tensor, found: Assignment, role: Role) -> Assignment:
    """The role a user asks for, checked."""
    if role != "vector" and param.ndim < 2:
        raise RoleError(
            f"{name} has shape {tuple(param.shape)} and cannot be a {role}; only tensors of two or "
            "more axes can. Write 'vector', or leave it out"
        )
    if role in HIDDEN and found.role in ("embedding", "head", "tied"):
        warnings.warn(
            f"{name} is treated as a hidden {role}, but the module says {found.role} "
            f"({found.why}); such layers usually do better by themselves",
            RoleWarning,
            stacklevel=5,
        )
    if role == found.role:
        return replace(found, unsure=False)
    output = found.output if found.role in (*HIDDEN, "head") else 0
    if role == "embedding":
        output = param.ndim - 1
    return Assignment(
        role, "as you say", output=output, pieces=found.pieces if role in HIDDEN else 1
    )


def unsure(assignments: Mapping[str, Assignment]) -> Iterator[str]:
    """What should be looked at, one remark for each guess."""
    for name, assigned in assignments.items():
        if not assigned.unsure:
            continue
        if assigned.role == "vector":
            yield (
                f"{name} has more than two axes, which does not say how it is a matrix, so it is "
                f"treated as a vector; write roles={{{name!r}: 'vector'}} if that is right, or "
                "'matrix' to flatten it to (first axis, all others)"
            )
        elif assigned.role == "matrix":
            yield (
                f"{name} is a bare tensor of two axes, taken for a hidden matrix; write "
                f"roles={{{name!r}: 'matrix'}} if it multiplies from the left or right, else "
                "'vector'"
            )
        else:
            yield (
                f"{name} is taken for the output layer ({assigned.why}), yet has not as many "
                "outputs as the embedding has rows; if the embedding is also the output layer, "
                f"write roles={{'NAME': 'tied', {name!r}: 'matrix'}}, else roles={{'NAME': 'head'}}"
            )

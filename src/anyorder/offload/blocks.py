"""Finds the blocks of a model, and which parameters move with them."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anyorder.model.params import module_parameters
from anyorder.offload.tensorfile import DTYPES, OffloadError
from anyorder.points.substitution import hidden

_NAME_THEM = "write blocks='model.layers', the name of a list of modules, or blocks=[...]"


@dataclass(frozen=True, slots=True)
class Block:
    """A module whose parameters are in memory only while it is used.

    Attributes:
        name: its name in the model.
        module: the module.
        params: its own parameters by name; those shared with other parts of the model stay in
            memory and are not among them.
        trainable: names of those that are updated.
    """

    name: str
    module: nn.Module
    params: dict[str, Tensor]
    trainable: frozenset[str]

    @property
    def nbytes(self) -> int:
        """Bytes of all parameters in the dtype of the model."""
        return sum(p.numel() * p.element_size() for p in self.params.values())


def split(
    model: nn.Module, blocks: str | Sequence[nn.Module] | None
) -> tuple[list[Block], dict[str, Tensor]]:
    """Return the blocks of a model, and all parameters that stay in memory, by name.

    Args:
        model: the model.
        blocks: the modules, the name of a list of them, or ``None`` for every outermost
            ``ModuleList`` of at least two modules of one class, as decoders have.

    Raises:
        OffloadError: there are no such blocks, or they cannot be offloaded.
    """
    chosen = _chosen(model, blocks)
    _check_modules(model, chosen)
    owners = _owners(model, chosen)
    named = module_parameters(model)
    names = {id(module): path for path, module in model.named_modules()}
    found = [
        Block(
            names[id(module)],
            module,
            params := {name: p for name, p in named if owners[id(p)] == {index}},
            frozenset(name for name, p in params.items() if p.requires_grad),
        )
        for index, module in enumerate(chosen)
    ]
    for block in found:
        for name, param in block.params.items():
            _check_param(name, param)
    inside = {id(p) for block in found for p in block.params.values()}
    _check_memory(named, inside)
    return found, {name: p for name, p in named if id(p) not in inside}


def empty(params: Mapping[str, Tensor], device: torch.device) -> None:
    """Free the memory of parameters; they keep their shapes, and all their elements are NaN."""
    with torch.inference_mode(False):
        for param in params.values():
            nothing = torch.full((), torch.nan, dtype=param.dtype, device=device)
            param.data = nothing.expand(param.shape)


def identity(blocks: Sequence[Block], residents: dict[str, Tensor], storage: str | None) -> str:
    """Return a hash of names, shapes, dtypes and the partition of a model into blocks."""
    facts = [
        [[name, list(p.shape), str(p.dtype), p.requires_grad] for name, p in params.items()]
        for params in (*(block.params for block in blocks), residents)
    ]
    return hashlib.sha256(json.dumps([storage, facts]).encode()).hexdigest()


def _chosen(model: nn.Module, blocks: str | Sequence[nn.Module] | None) -> list[nn.Module]:
    if blocks is None:
        found = _automatic(model)
        if not found:
            raise OffloadError(
                f"found no ModuleList of modules of one class in {type(model).__name__}; "
                f"{_NAME_THEM}"
            )
        return found
    if isinstance(blocks, str):
        modules = dict(model.named_modules())
        if blocks not in modules:
            raise OffloadError(f"blocks: the model has no module {blocks!r}; {_NAME_THEM}")
        found = list(modules[blocks].children())
    else:
        found = list(blocks)
    if not found or not all(isinstance(block, nn.Module) for block in found):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise OffloadError(f"blocks: expected modules of the model, got {blocks!r}; {_NAME_THEM}")
    return found


def _automatic(model: nn.Module) -> list[nn.Module]:
    """The modules in every outermost list of at least two modules of one class."""
    found: list[nn.Module] = []
    taken: list[str] = []
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{other}.") for other in taken)
        if not isinstance(module, nn.ModuleList) or inside:
            continue
        kinds = {type(block) for block in module}
        if len(module) > 1 and len(kinds) == 1 and any(True for _ in module.parameters()):
            found += list(dict.fromkeys(module))
            taken.append(path)
    return found


def _check_modules(model: nn.Module, chosen: Sequence[nn.Module]) -> None:
    paths = {id(module): path for path, module in model.named_modules()}
    if any(id(block) not in paths for block in chosen) or len(set(chosen)) < len(chosen):
        raise OffloadError(
            "blocks: expected modules of the model, each once; "
            "for a list of modules without a model write ZO2(nn.ModuleList(blocks))"
        )
    for block in chosen:
        inner = {id(module) for module in block.modules()} - {id(block)}
        if any(id(other) in inner for other in chosen):
            raise OffloadError(f"blocks: {paths[id(block)]} contains another block; name one level")
    if hidden(model) or any(isinstance(m, torch.jit.ScriptModule) for m in model.modules()):
        raise OffloadError(
            "expected a model in plain Python, got compiled or scripted modules, whose reads of "
            "weights cannot be replaced; pass the model that torch.compile was given"
        )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise OffloadError(
                f"{name} is on the meta device and has no values; load the weights first, with "
                "model.load_state_dict(torch.load(file, mmap=True), assign=True), and compute "
                "buffers that the file does not contain"
            )
    quantised = [
        path
        for path, module in model.named_modules()
        if ".quantized" in type(module).__module__ or getattr(module, "is_quantized", False) is True
    ]
    if quantised:
        raise _quantised(quantised[0] or type(model).__name__)


def _owners(model: nn.Module, chosen: Sequence[nn.Module]) -> dict[int, set[int]]:
    """The positions of the blocks that use each parameter; -1 for use outside of blocks."""
    place = {id(block): index for index, block in enumerate(chosen)}
    found: dict[int, set[int]] = {}
    inside: dict[str, int] = {}  # paths of blocks; a path is listed after that of its parent
    for path, module in model.named_modules(remove_duplicate=False):
        parent = path.rpartition(".")[0]
        inside[path] = place.get(id(module), inside.get(parent, -1) if path else -1)
        for param in module.parameters(recurse=False):
            found.setdefault(id(param), set()).add(inside[path])
    return found


def _check_param(name: str, param: Tensor) -> None:
    if type(param) is not nn.Parameter or not param.is_floating_point():
        raise _quantised(name)
    if not param.is_contiguous() or param.dtype not in DTYPES.values():
        raise OffloadError(
            f"{name}: expected a contiguous parameter of a common floating-point dtype, got "
            f"{param.dtype} with strides {tuple(param.stride())}"
        )


def _quantised(name: str) -> OffloadError:
    return OffloadError(
        f"{name} is quantised; expected floating-point weights, because every step adds to them. "
        "Load the model without quantisation, in bfloat16 if memory is short"
    )


def _check_memory(named: Sequence[tuple[str, Tensor]], inside: set[int]) -> None:
    """Refuse parameters of blocks that share memory with another parameter."""
    spans = sorted((p.data_ptr(), p.data_ptr() + p.nbytes, n, id(p)) for n, p in named if p.nbytes)
    for (_, end, first, one), (start, _, second, two) in itertools.pairwise(spans):
        if start < end and {one, two} & inside:
            raise OffloadError(
                f"{first} and {second} are different parameters that share memory; tie them as one "
                "Parameter, which then stays in memory, or give each its own"
            )

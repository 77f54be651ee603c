"""Evaluate a closure at a shifted point without ever writing to the stored weights.

Adding noise and subtracting it again restores weights exactly in no dtype. So the stored weights
stay untouched: while the closure runs, each operation that takes a parameter is handed the
parameter's shifted value, made for that operation from the direction's seed and freed after it.
The memory needed is that of inference plus one layer.

This works for any closure whose operations PyTorch can see, with modules or bare parameters, tied
weights included. Code that PyTorch cannot look into (compiled or scripted modules) reads the stored
weights; such parameters are found beforehand, or on the first evaluation, for they are never asked
for, and are then shifted in place from a saved copy and put back from it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from anyorder.engine import Engine
from anyorder.model.params import module_parameters
from anyorder.points.directions import SMALL, Seeded, Shift, shifted_by


def _getters() -> frozenset[Any]:
    names = ("shape", "dtype", "device", "layout", "ndim", "requires_grad", "is_leaf", "grad_fn")
    flags = ("is_cuda", "is_sparse", "is_meta", "is_quantized", "is_nested", "is_mps", "is_cpu")
    properties = (getattr(Tensor, name).__get__ for name in (*names, *flags))
    methods = (
        Tensor.size, Tensor.dim, Tensor.numel, Tensor.stride, Tensor.is_contiguous, Tensor.nelement,
        Tensor.is_floating_point, Tensor.is_complex, Tensor.element_size, Tensor.__hash__,
        Tensor.__len__, Tensor.get_device, torch.is_tensor, torch.is_floating_point,
        torch.is_complex, torch.numel,
    )  # fmt: skip
    return frozenset((*properties, *methods))


#: Questions about a tensor that its shifted value would answer alike.
_METADATA = _getters()


class _Substitute(TorchFunctionMode):
    """Hands shifted values to operations in place of parameters."""

    def __init__(self, params: Mapping[str, Tensor], shift: Shift, engine: Engine) -> None:
        super().__init__()
        self.names = {id(param): name for name, param in params.items()}
        self.params, self.shift, self.engine = params, shift, engine
        self.seen: set[str] = set()
        self.small = _small(params, shift, engine)
        self.untraced: Callable[[Any], Any] = self._swap
        if "torch._dynamo" in sys.modules:  # somebody may compile
            self.untraced = torch.compiler.disable(self._swap)  # pyright: ignore[reportAttributeAccessIssue]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _METADATA:
            return func(*args, **kwargs)
        # While somebody compiles the closure, what makes the noise must not be traced.
        swap = self.untraced if torch.compiler.is_compiling() else self._swap
        changed = [swap(a) for a in args]
        return func(*changed, **{key: swap(value) for key, value in kwargs.items()})

    def _swap(self, value: Any) -> Any:
        name = self.names.get(id(value))  # parameters live on, so nothing else has their identity
        if name is not None:
            self.seen.add(name)
            if name in self.small:
                return self.small[name]
            assert self.shift.direction is not None
            return self.shift.direction.shifted(name, value.detach(), self.shift.scale, self.engine)
        if isinstance(value, (list, tuple)) and any(isinstance(v, (Tensor, list)) for v in value):  # pyright: ignore[reportUnknownVariableType]
            return type(value)(self._swap(v) for v in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        return value


def _small(params: Mapping[str, Tensor], shift: Shift, engine: Engine) -> dict[str, Tensor]:
    """Shifted values of the small parameters, made together: the calls would cost the most."""
    if not isinstance(shift.direction, Seeded):
        return {}
    devices: dict[torch.device, dict[str, Tensor]] = {}
    for name, param in params.items():
        if param.numel() <= SMALL:
            devices.setdefault(param.device, {})[name] = param.detach()
    found: dict[str, Tensor] = {}
    for chosen in devices.values():
        for name, z in shift.direction.many(chosen, engine).items():
            found[name] = shifted_by(chosen[name], z, shift.scale)
    return found


@contextlib.contextmanager
def shifted(
    params: Mapping[str, Tensor], shift: Shift, engine: Engine, opaque: frozenset[str] = frozenset()
) -> Generator[set[str]]:
    """While open, operations see ``params`` shifted. Yields the names asked for so far.

    Args:
        params: parameters by name.
        shift: where to.
        engine: makes the shifted values.
        opaque: names to shift in place (from a saved copy, put back at the end) because they are
            read where operations cannot be seen.
    """
    if not shift:
        yield set(params)
        return
    if not opaque:
        with _Substitute(params, shift, engine) as mode:
            yield mode.seen
        return
    visible = {name: param for name, param in params.items() if name not in opaque}
    with in_place({name: params[name] for name in opaque}, shift, engine):
        with _Substitute(visible, shift, engine) as mode:
            yield mode.seen
        mode.seen |= opaque


def hidden(module: nn.Module | None) -> set[str]:
    """Names of the parameters of scripted and compiled submodules, whose reads cannot be seen."""
    if module is None:
        return set()
    inside = {
        id(param)
        for part in module.modules()
        if isinstance(part, torch.jit.ScriptModule)
        or type(part).__name__ == "OptimizedModule"  # what torch.compile returns
        or getattr(part, "_compiled_call_impl", None) is not None  # what module.compile() sets
        for param in part.parameters()
    }
    return {name for name, param in module_parameters(module) if id(param) in inside}


@contextlib.contextmanager
@torch.no_grad()
def in_place(params: Mapping[str, Tensor], shift: Shift, engine: Engine) -> Generator[None]:
    """While open, ``params`` hold their shifted values; then the saved ones, bit for bit.

    Needs memory for a copy of these parameters.
    """
    if not shift or not params:
        yield
        return
    assert shift.direction is not None
    saved = {name: param.detach().clone() for name, param in params.items()}
    try:
        for name, param in params.items():
            param.copy_(shift.direction.shifted(name, saved[name], shift.scale, engine))
        yield
    finally:
        for name, param in params.items():
            param.copy_(saved[name])

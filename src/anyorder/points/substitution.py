"""Evaluates a closure at a shifted point without changing the stored weights.

Adding noise and subtracting it again does not restore weights exactly in any floating-point dtype.
The stored weights therefore stay unchanged: while the closure runs, each operation on a parameter
receives the shifted value instead, which is generated from the direction's seed for that operation
and freed afterwards. This needs the memory of inference plus one layer.

This works for any closure whose operations PyTorch can intercept, with modules or bare parameters,
including tied weights. Code that PyTorch cannot intercept (compiled or scripted modules) reads the
stored weights. Such parameters are detected in advance, on the first evaluation, when a scripted
module that contains them is called, or because no operation requests them. They are shifted in
place and restored from a saved copy.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from anyorder.engine import Engine
from anyorder.model.params import module_parameters
from anyorder.points.composed import Composed, vectors
from anyorder.points.directions import SMALL, Direction, Seeded, Shift, shifted_by


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


#: Functions whose result is the same for the shifted value.
_METADATA = _getters()


class _Substitute(TorchFunctionMode):
    """Replaces parameters by other values in every operation.

    Args:
        params: parameters by name.
        small: values of small parameters, generated together to save calls.
        value: returns the value of any other parameter from its name and itself.
    """

    def __init__(
        self,
        params: Mapping[str, Tensor],
        small: Mapping[str, Tensor],
        value: Callable[[str, Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.names = {id(param): name for name, param in params.items()}
        self.params, self.small, self.value = params, small, value
        self.seen: set[str] = set()
        self.stored: set[str] = set()  # read by code that cannot be intercepted
        self.swapping = False
        self.untraced: Callable[[Any], Any] = self._swap
        if "torch._dynamo" in sys.modules:  # the closure may compile
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
        # While the closure is compiled, the generation of noise must not be traced.
        swap = self.untraced if torch.compiler.is_compiling() else self._swap
        changed = [swap(a) for a in args]
        return func(*changed, **{key: swap(value) for key, value in kwargs.items()})

    def _swap(self, value: Any) -> Any:
        name = self.names.get(id(value))  # parameters stay alive, so ids are unique
        if name is not None:
            self.seen.add(name)
            found = self.small.get(name)
            if found is not None:
                return found
            self.swapping = True
            try:
                return self.value(name, value.detach())
            finally:
                self.swapping = False
        if isinstance(value, (list, tuple)) and any(isinstance(v, (Tensor, list)) for v in value):  # pyright: ignore[reportUnknownVariableType]
            return type(value)(self._swap(v) for v in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        return value

    def before_module(self, module: nn.Module, args: Any) -> None:
        """Find parameters of a scripted module, which reads the stored weights."""
        if isinstance(module, torch.jit.ScriptModule):
            inside = (self.names.get(id(param)) for param in module.parameters())
            self.stored.update(name for name in inside if name is not None)


class _StoredReads(TorchDispatchMode):
    """Finds parameters whose stored weights an operation reads, through any view of them.

    It sees every operation of PyTorch, also those of scripted functions and extensions, which takes
    several times as long as small operations.
    """

    def __init__(self, mode: _Substitute) -> None:
        super().__init__()
        self.mode = mode
        self.names: dict[int, list[str]] = {}
        for name, param in mode.params.items():
            self.names.setdefault(_storage(param), []).append(name)

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not self.mode.swapping:
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, Tensor):
                    self.mode.stored.update(self.names.get(_storage(leaf), ()))
        return func(*args, **kwargs)


def _storage(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]
    except (NotImplementedError, RuntimeError):  # sparse tensors and wrappers have none
        return id(tensor)


def _shifting(params: Mapping[str, Tensor], shift: Shift, engine: Engine) -> _Substitute:
    """The replacement of parameters by shifted values."""
    direction, scale = shift.direction, shift.scale
    assert direction is not None
    small: dict[str, Tensor] = {}
    if isinstance(direction, (Seeded, Composed)):
        for chosen in _small(params):
            made = direction.many(chosen, engine)
            for name, x in chosen.items():
                small[name] = shifted_by(x, made[name], scale) if name in made else x.clone()
    return _Substitute(params, small, lambda name, x: direction.shifted(name, x, scale, engine))


def _small(params: Mapping[str, Tensor]) -> Iterable[dict[str, Tensor]]:
    """The small parameters of each device."""
    devices: dict[torch.device, dict[str, Tensor]] = {}
    for name, param in params.items():
        if param.numel() <= SMALL:
            devices.setdefault(param.device, {})[name] = param.detach()
    return devices.values()


@contextlib.contextmanager
def tangents(
    params: Mapping[str, Tensor], direction: Direction, engine: Engine
) -> Generator[set[str]]:
    """Replace ``params`` by dual numbers with the direction as tangent. Yield a set of names.

    Used inside ``torch.autograd.forward_ad.dual_level()``. At the end the set holds the parameters
    that were used, and read by no scripted module.
    """
    _load_derivatives()

    def dual(param: Tensor, z: Tensor | None) -> Tensor:
        return param if z is None else forward_ad.make_dual(param, z.to(param.dtype))

    def value(name: str, param: Tensor) -> Tensor:
        return dual(param, vectors(direction, {name: param}, engine).get(name))

    small: dict[str, Tensor] = {}
    for chosen in _small(params):
        made = vectors(direction, chosen, engine)
        small |= {name: dual(param, made.get(name)) for name, param in chosen.items()}
    mode = _Substitute(params, small, value)
    with contextlib.ExitStack() as stack:
        _enter(stack, mode, thorough=False)  # which does not go together with autocast
        yield mode.seen
    mode.seen -= mode.stored


@functools.cache
def _load_derivatives() -> None:
    """Import what PyTorch would import at the first dual number, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("torch._decomp.decompositions_for_jvp")


@contextlib.contextmanager
def shifted(
    params: Mapping[str, Tensor],
    shift: Shift,
    engine: Engine,
    opaque: frozenset[str] = frozenset(),
    *,
    thorough: bool = False,
) -> Generator[set[str]]:
    """Replace ``params`` by shifted values in operations. Yield a set of names.

    At the end it holds the parameters that were used and whose uses were all shifted.

    Args:
        params: parameters by name.
        shift: the shift to apply.
        engine: runs the rules that compute the shifted values.
        opaque: names of parameters that are read by code that cannot be intercepted. They are
            shifted in place and restored from a saved copy.
        thorough: look at every operation for reads of stored weights; slower.
    """
    if not shift:
        yield set(params)
        return
    visible = params
    if opaque:
        visible = {name: param for name, param in params.items() if name not in opaque}
    mode = _shifting(visible, shift, engine)
    moved = {name: params[name] for name in opaque}
    with contextlib.ExitStack() as stack:
        if moved:
            stack.enter_context(in_place(moved, shift, engine))
        _enter(stack, mode, thorough)
        yield mode.seen
    mode.seen -= mode.stored
    mode.seen |= opaque


def _enter(stack: contextlib.ExitStack, mode: _Substitute, thorough: bool) -> None:
    """Replace parameters until ``stack`` is left, and look for what cannot be replaced."""
    if _scripted():
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", ".*when there are global hooks on modules", UserWarning)
        stack.callback(register_module_forward_pre_hook(mode.before_module).remove)
    if thorough:
        stack.enter_context(_StoredReads(mode))
    stack.enter_context(mode)


def _scripted() -> bool:
    """Whether this process has scripted or traced a module: hooks of all modules slow others."""
    store: Any = getattr(torch.jit, "_recursive", None)
    types: Any = getattr(getattr(store, "concrete_type_store", None), "type_store", None)
    return types is None or bool(types)


def hidden(module: nn.Module | None) -> set[str]:
    """Names of parameters in scripted and compiled submodules: reads cannot be intercepted."""
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
    """Shift ``params`` in place; restore the saved values bit for bit at the end.

    This needs memory for a copy of these parameters.
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

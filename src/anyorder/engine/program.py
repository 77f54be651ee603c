"""Programs: a rule together with reading and writing of state and weight decay.

A *rule* is the update formula of a method: a short function that works in place and elementwise on
1-D tensors of equal length, written with basic tensor operations::

    def sgd_(param, velocity, grad, *, lr, momentum):
        velocity.mul_(momentum).add_(grad)
        param.sub_(lr * velocity)

Tensors are positional, outputs first; scalars are keyword-only and are passed as 0-dim tensors, so
a schedule changes their values without recompiling. They are float64, or float32 where an eager
rule only combines them with float32 tensors, which would round them anyway (:func:`precision_for`).
A rule uses only operations that IEEE 754 rounds exactly (``+ - * / sqrt``, sign, comparisons,
integer and bit operations), never ``add(alpha=)`` or ``lerp``, which some kernels fuse. Eager and
compiled runs are therefore bitwise equal, and a run may switch from one to the other.

A :class:`Program` contains a rule. It first reads tensors stored in another precision, then applies
weight decay and the rule, and then writes the tensors back. Tensors in half precision are widened
to float32 for the rule and rounded once when written back.
"""

from __future__ import annotations

import functools
import inspect
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from anyorder.engine.formats import PLAIN, Format, Parts, noise_for
from anyorder.engine.tensors import HALF

Arithmetic = Callable[..., None]
Decay = Literal["", "decoupled", "coupled"]
#: The scalars of a program by name.
Scalars = Mapping[str, float | Tensor]

#: Scalars of a program with stochastic rounding: two keys and the index of the first element.
NOISE = ("noise_low", "noise_high", "noise_start")


@dataclass(frozen=True, eq=False)
class Program:
    """A rule with its formats and weight decay, created by :func:`program_for`.

    Attributes:
        rule: the update rule.
        formats: storage formats of the leading tensors of the rule (the others: unchanged).
        decay: weight decay applied before the rule: ``decoupled`` multiplies the first tensor by
            the scalar ``shrink``; ``coupled`` adds ``penalty`` times it to the input at
            ``gradient``.
        gradient: position of the gradient among the rule's tensors.
    """

    rule: Arithmetic
    formats: tuple[Format, ...] = ()
    decay: Decay = ""
    gradient: int = 1

    @property
    def name(self) -> str:
        """Name of the program in file names and counts."""
        return self.rule.__name__

    @functools.cached_property
    def random(self) -> bool:
        """Whether it uses stochastic rounding."""
        return any(form.random for form in self.formats)

    @functools.cached_property
    def block(self) -> int:
        """Row length of its tensors if they are two-dimensional; 0 for flat ones."""
        return max((form.block for form in self.formats), default=0)

    @functools.cached_property
    def plain(self) -> bool:
        """Whether all formats store values unchanged."""
        return all(form == PLAIN for form in self.formats)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the scalars of the rule."""
        return scalar_names(self.rule)

    @functools.cached_property
    def scalars(self) -> tuple[str, ...]:
        """Names of all scalars of the program, in order."""
        decay = {"": (), "decoupled": ("shrink",), "coupled": ("penalty",)}[self.decay]
        return (*scalar_names(self.rule), *decay, *(NOISE if self.random else ()))

    def __call__(self, tensors: Sequence[Tensor], scalars: Mapping[str, Tensor]) -> None:
        """Read, apply decay and the rule, and write, in place."""
        own = {name: scalars[name] for name in self.names}
        if self.direct([t.dtype for t in tensors]):
            self.update(list(tensors), scalars, own)
            return
        stored, values = self._read(tensors)
        self.update(values, scalars, own)
        noise = self._noise(values[0], scalars)
        for index in range(self.written(len(values))):
            form = self.formats[index] if index < len(self.formats) else PLAIN
            form.write_(stored[index], values[index], noise.get(index))

    def direct(self, dtypes: Iterable[torch.dtype]) -> bool:
        """Whether the rule works on stored tensors of these dtypes themselves."""
        return self.plain and HALF.isdisjoint(dtypes)

    def update(
        self, values: list[Tensor], scalars: Mapping[str, Tensor], own: Mapping[str, Tensor]
    ) -> None:
        """Apply decay and the rule in place; ``own`` are the scalars of the rule."""
        if self.decay == "decoupled":
            values[0].mul_(scalars["shrink"])
        elif self.decay == "coupled":
            grad = values[self.gradient]
            values[self.gradient] = grad + values[0] * scalars["penalty"]
        self.rule(*values, **own)

    def written(self, count: int) -> int:
        """Return how many of the ``count`` leading tensors of its rule are outputs."""
        return max(_written(self.rule, count), self.decay == "decoupled")

    def changed(self, count: int) -> int:
        """Return how many of its own ``count`` leading tensors are outputs."""
        written = self.written(count - _more(self.formats))
        return written + _more(self.formats[:written])

    def __reduce__(self) -> tuple[Any, ...]:
        """Copying returns the same object."""
        return program_for, (self.rule, self.formats, self.decay, self.gradient)

    def _read(self, tensors: Sequence[Tensor]) -> tuple[list[Parts], list[Tensor]]:
        stored: list[Parts] = []
        values: list[Tensor] = []
        rest = list(tensors)
        while rest:
            form = self.formats[len(stored)] if len(stored) < len(self.formats) else PLAIN
            parts = tuple(rest[: form.parts])
            del rest[: form.parts]
            stored.append(parts)
            values.append(form.read(parts))
        return stored, values

    def _noise(self, like: Tensor, scalars: Mapping[str, Tensor]) -> dict[int, Tensor]:
        """Random bits for each tensor that uses them, by position: two tensors share one word."""
        rounded = [index for index, form in enumerate(self.formats) if form.random]
        found: dict[int, Tensor] = {}
        for pair in range(0, len(rounded), 2):
            low, high, start = (scalars[name] for name in NOISE)
            words = noise_for(like.numel(), low + pair, high, start, like.device).view(like.shape)
            found |= zip(rounded[pair : pair + 2], (words, words >> 16), strict=False)
        return found


@functools.cache
def program_for(
    rule: Arithmetic, formats: tuple[Format, ...] = (), decay: Decay = "", gradient: int = 1
) -> Program:
    """Return the program for these arguments, always the same object."""
    return Program(rule, formats, decay, gradient)


class Numbers:
    """The scalars of a program as 0-dim CPU tensors, created once and written before each run.

    Args:
        program: the program.
        dtype: float32 or float64; scalars of the noise are int64.
    """

    def __init__(self, program: Program, dtype: torch.dtype) -> None:
        self._noise = [name for name in program.scalars if name in NOISE]
        self._names = [name for name in program.scalars if name not in NOISE]
        self._floats = array("f" if dtype is torch.float32 else "d", [0.0] * len(self._names))
        self._whole = array("q", [0] * len(self._noise))
        cells = [*_cells(self._floats), *_cells(self._whole)]
        self.tensors = dict(zip([*self._names, *self._noise], cells, strict=True))

    def write(self, scalars: Scalars) -> None:
        """Give the tensors these values."""
        floats = self._floats
        for place, name in enumerate(self._names):
            floats[place] = scalars[name]  # type: ignore[assignment]  # also 0-dim tensors
        for place, name in enumerate(self._noise):
            self._whole[place] = int(scalars[name])


@torch.inference_mode(False)  # they outlive the inference mode of a first step
def _cells(values: array[Any]) -> Sequence[Tensor]:
    """0-dim tensors that share the memory of ``values``."""
    return torch.from_numpy(np.frombuffer(values, values.typecode)).unbind() if values else ()


class EagerRun:
    """Runs a program eagerly on tensors of some dtypes; all that depends on these is prepared."""

    def __init__(self, program: Program, dtypes: tuple[torch.dtype, ...]) -> None:
        self._program, self._direct = program, program.direct(dtypes)
        self._numbers = Numbers(program, precision_for(program.rule, dtypes))
        self._own = {name: self._numbers.tensors[name] for name in program.names}

    def __call__(self, tensors: Sequence[Tensor], scalars: Scalars) -> None:
        """Run on tensors of these dtypes."""
        self._numbers.write(scalars)
        if self._direct:
            self._program.update(list(tensors), self._numbers.tensors, self._own)
        else:
            self._program(tensors, self._numbers.tensors)


@functools.lru_cache(maxsize=1024)
def eager_run(program: Program, dtypes: tuple[torch.dtype, ...], thread: int) -> EagerRun:
    """Return the run for these arguments; threads share no scalars."""
    return EagerRun(program, dtypes)


def tensors_of(program: Program, scalars: Scalars) -> list[Tensor]:
    """The scalars as new tensors in the order of the program, float64, as kernels take them."""
    numbers = Numbers(program, torch.float64)
    numbers.write(scalars)
    return list(numbers.tensors.values())


@functools.cache
def precision_for(rule: Arithmetic, dtypes: tuple[torch.dtype, ...]) -> torch.dtype:
    """The dtype of scalars in an eager run of ``rule`` on tensors of these dtypes.

    PyTorch rounds a float64 scalar that meets a float32 tensor, at the price of another operation
    each time. It is rounded once for all where nothing else is done with it.
    """
    if not HALF.union((torch.float32,)).issuperset(dtypes):
        return torch.float64
    with torch.inference_mode(False), torch.no_grad():
        tensors = [torch.ones(2, dtype=torch.float32, device="cpu") for _ in dtypes]
        scalars = dict.fromkeys(
            scalar_names(rule), torch.ones((), dtype=torch.float64, device="cpu")
        )
        with _Meetings() as seen:
            rule(*tensors, **scalars)
    return torch.float32 if seen.vectors_only else torch.float64


class _Meetings(TorchDispatchMode):
    """Sees whether each operation on a scalar also takes a float32 tensor that is none."""

    vectors_only = True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        if not all(t.ndim for t in given) and not any(
            t.ndim and t.dtype is torch.float32 for t in given
        ):
            self.vectors_only = False
        return func(*args, **kwargs)


def _more(formats: Sequence[Format]) -> int:
    """Number of stored tensors in addition to one per value tensor."""
    return sum(form.parts - 1 for form in formats)


@functools.cache
@torch.inference_mode(False)  # inference tensors do not track writes
def _written(rule: Arithmetic, count: int) -> int:
    """Return how many leading tensors a rule writes to, by running it once on ones."""
    tensors = [torch.ones(2, dtype=torch.float64, device="cpu") for _ in range(count)]
    before = [t._version for t in tensors]
    one = torch.ones((), dtype=torch.float64, device="cpu")
    rule(*tensors, **dict.fromkeys(scalar_names(rule), one))
    return max((i + 1 for i, t in enumerate(tensors) if t._version != before[i]), default=0)


@functools.cache
def scalar_names(rule: Arithmetic) -> tuple[str, ...]:
    """Return the keyword-only arguments of a rule, in order."""
    parameters = inspect.signature(rule).parameters.values()
    return tuple(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)

"""A plain function as a closure: shown copies of points, its values remembered, the best kept."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Generator, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anyorder.engine import Engine
from anyorder.errors import AnyOrderError
from anyorder.oracle.closures import Closure
from anyorder.points.directions import Shift

Point = Any  # a numpy array, a list of numbers or a tensor; the answer comes in the same kind
Function = Callable[..., Any]
#: Makes of a tensor what the user is shown: a copy, in the kind of ``x0``.
Shown = Callable[[Tensor], Point]

#: A value is worse than another if it is so by more than this many rounding errors.
ROUNDING = 16


class MinimizeError(AnyOrderError, ValueError):
    """A function, a start or an option that cannot be used."""


class Seen:
    """The values the function gave and where, of which the best is kept.

    Args:
        start: where the run begins.
        sign: -1 where large values are good, else 1.
    """

    def __init__(self, start: Tensor, sign: float) -> None:
        self.start, self.sign = start, sign
        self.best, self.fun = start, math.nan
        self.last: tuple[Tensor, float] | None = None
        self.opening = True  # until the first step is done
        self._first: list[float] = []
        self._at_start: float | None = None

    def take(self, x: Tensor, value: float) -> None:
        """Take note of a value at ``x``, which nobody changes any more."""
        self.last = x, value
        if self.opening:
            self._first.append(value)
            if self._at_start is None and torch.equal(x, self.start):
                self._at_start = value
        if math.isfinite(value) and not self.sign * value >= self.sign * self.fun:
            self.best, self.fun = x, value

    def began(self) -> float:
        """The value at the start, or around it for methods that only look there."""
        if self._at_start is not None:
            return self._at_start
        found = [value for value in self._first if math.isfinite(value)]
        return sum(found) / len(found) if found else math.nan

    def worse(self, value: float) -> bool:
        """Whether ``value`` is worse than a known one at the start; NaN is."""
        began = self.began()
        slack = ROUNDING * torch.finfo(self.start.dtype).eps * abs(began)
        return math.isfinite(began) and not self.sign * (value - began) <= slack


@contextlib.contextmanager
def plain_settings() -> Generator[Callable[[Function], Function]]:
    """PyTorch as the library expects it, whatever the caller has set.

    Autograd works, and new tensors lie on the CPU unless a device is named. Yields what makes a
    function of the user's run on the user's default device.
    """
    device = torch.get_default_device()
    moved = device.type != "cpu"

    def users(function: Function) -> Function:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with device:
                return function(*args, **kwargs)

        return call if moved else function

    with torch.inference_mode(False), torch.device("cpu") if moved else contextlib.nullcontext():
        yield users


# Points and numbers -------------------------------------------------------------------------------


def kind(x0: Point) -> Shown:
    """How points are shown to the user: as copies in the kind of ``x0``."""
    if isinstance(x0, Tensor):
        return lambda tensor: tensor.detach().clone()
    return lambda tensor: tensor.detach().cpu().numpy().copy()


def start_of(x0: Point) -> Tensor:
    """``x0`` as a tensor of its own, or :class:`MinimizeError`."""
    try:
        start = x0.detach().clone() if isinstance(x0, Tensor) else numbers(x0)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MinimizeError(f"x0: expected real numbers, got {x0!r}") from error
    if not start.is_floating_point() or not start.numel() or not bool(start.isfinite().all()):
        raise MinimizeError(
            f"x0: expected a non-empty array of finite real numbers, got {x0!r}; for a tensor "
            "use a floating dtype"
        )
    return start


def numbers(value: Any) -> Tensor:
    """Real numbers of any kind as a detached tensor, of dtype float64 unless they are one."""
    if isinstance(value, Tensor) and not value.is_complex():
        return value.detach()
    found = np.asarray(value)
    if found.dtype.kind not in "fiub":
        raise TypeError(f"expected real numbers, got {value!r}")
    return torch.from_numpy(found.astype(np.float64))


def is_number(value: Any) -> bool:
    """Whether ``value`` is one real number, of Python or numpy, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)  # pyright: ignore[reportUnnecessaryIsInstance]


def own(args: Any) -> tuple[Any, ...]:
    """Further arguments as a tuple. Of tensors from inference mode autograd needs copies."""
    args = args if isinstance(args, tuple) else (args,)
    return tuple(a.clone() if isinstance(a, Tensor) and a.is_inference() else a for a in args)


# Functions as closures ----------------------------------------------------------------------------


def closure_of(
    fun: Function, jac: Function | bool | None, point: torch.nn.Parameter, shown: Shown, seen: Seen
) -> Closure:
    """A closure that asks ``fun`` at ``point`` or wherever it is moved to.

    Args:
        fun: the function of a point.
        jac: its gradient; True if ``fun`` returns it beside the value, None if autograd finds it
            or nobody asks for it.
        point: the parameter that holds the point.
        shown: makes what ``fun`` and ``jac`` are given.
        seen: remembers what ``fun`` answers.
    """
    native = isinstance(shown(point), Tensor)

    def ask(x: Tensor) -> tuple[Tensor, Any]:
        """The value at ``x``, and the gradient if it comes beside it."""
        here, slope = x.detach().clone(), None
        answer = fun(x.clone() if native else shown(here))
        if jac is True:
            answer, slope = _both(answer)
        value = _one_number(answer)
        seen.take(here, float(value.item()))
        if isinstance(answer, Tensor) and answer.is_floating_point():
            if not (answer.requires_grad or bool(value.isfinite())):
                answer = answer + 0.0 * x.sum()  # out of bounds: no constant, but no finite loss
            return answer.reshape(()), slope  # with its graph
        return value.to(here), slope

    if jac is None or jac is False:
        return lambda: ask(point)[0]

    class Known(torch.autograd.Function):
        """A function whose gradient the user supplies."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            value, ctx.beside = ask(x)
            return value.to(x.dtype)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return grads[0] * _slope(ctx.beside if jac is True else jac(shown(x)), x)

    return lambda: Known.apply(point)  # pyright: ignore


def ranker_of(
    ranker: Callable[[list[Any]], Sequence[int]], point: Tensor, shown: Shown
) -> Callable[[Sequence[Shift]], Sequence[int]]:
    """A ranker of points as a ranker of shifts."""
    engine = Engine("eager")

    def rank(shifts: Sequence[Shift]) -> Sequence[int]:
        points: list[Any] = []
        for shift in shifts:
            x = point.detach()
            if shift.direction is not None:
                x = shift.direction.shifted("x", x, shift.scale, engine)
            points.append(shown(x))
        return ranker(points)

    return rank


def _one_number(answer: Any) -> Tensor:
    """What ``fun`` answered as a detached tensor of shape (), or :class:`MinimizeError`."""
    try:
        found = numbers(answer)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MinimizeError(f"fun: expected one number, got {answer!r}") from error
    if found.numel() != 1:
        raise MinimizeError(f"fun: expected one number, got the shape {tuple(found.shape)}")
    return found.reshape(())


def _both(answer: Any) -> tuple[Any, Any]:
    """Value and gradient, where ``fun`` returns both."""
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise MinimizeError(
            f"fun: expected the value and the gradient, as jac=True says, got {answer!r}"
        )
    return answer[0], answer[1]


def _slope(answer: Any, x: Tensor) -> Tensor:
    """What ``jac`` answered as a tensor like ``x``, or :class:`MinimizeError`."""
    try:
        found = numbers(answer)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MinimizeError(f"jac: expected numbers shaped like x, got {answer!r}") from error
    if found.shape != x.shape:
        raise MinimizeError(
            f"jac: expected the shape {tuple(x.shape)} of x, got {tuple(found.shape)}"
        )
    return found.to(x)

"""Closures from plain functions; they record the values and keep the best point."""

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
from anyorder.oracle.closures import Closure, Ranked, Ranker
from anyorder.points.directions import Shift

Point = Any  # a NumPy array, a list of numbers or a tensor; results have the same type
Function = Callable[..., Any]
#: Converts a tensor to what the user's function receives: a copy of the type of ``x0``.
Shown = Callable[[Tensor], Point]

#: A value counts as worse than another only beyond this multiple of eps, relatively.
ROUNDING = 16


class MinimizeError(AnyOrderError, ValueError):
    """An invalid function, initial point or option."""


class Seen:
    """The evaluated points and values, of which the best is kept.

    Args:
        start: the initial point.
        sign: -1 when maximizing, else 1.
    """

    def __init__(self, start: Tensor, sign: float) -> None:
        self.start, self.sign = start, sign
        self.best, self.fun = start, math.nan
        self.last: tuple[Tensor, float] | None = None
        self.opening = True  # until the first step is done
        self._first: list[float] = []
        self._at_start: float | None = None

    def take(self, x: Tensor, value: float) -> None:
        """Record a value at ``x``, a tensor that is not modified later."""
        self.last = x, value
        if self.opening:
            self._first.append(value)
            if self._at_start is None and torch.equal(x, self.start):
                self._at_start = value
        if math.isfinite(value) and not self.sign * value >= self.sign * self.fun:
            self.best, self.fun = x, value

    def began(self) -> float:
        """The value at the initial point, or the mean around it if it was not evaluated."""
        if self._at_start is not None:
            return self._at_start
        found = [value for value in self._first if math.isfinite(value)]
        return sum(found) / len(found) if found else math.nan

    def worse(self, value: float) -> bool:
        """Whether ``value`` is worse than a known initial value; NaN is."""
        began = self.began()
        slack = ROUNDING * torch.finfo(self.start.dtype).eps * abs(began)
        return math.isfinite(began) and not self.sign * (value - began) <= slack


@contextlib.contextmanager
def plain_settings() -> Generator[Callable[[Function], Function]]:
    """Set the PyTorch defaults that the library expects, independent of the caller's.

    Autograd is enabled, and new tensors are on the CPU unless a device is specified. Yields a
    wrapper that makes a user's function run with the user's default device.
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
    """Return the conversion of points for the user: copies of the type of ``x0``."""
    if isinstance(x0, Tensor):
        return lambda tensor: tensor.detach().clone()
    return lambda tensor: tensor.detach().cpu().numpy().copy()


def start_of(x0: Point) -> Tensor:
    """Return a copy of ``x0`` as a tensor, or raise :class:`MinimizeError`."""
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
    """Convert real numbers to a detached tensor, float64 unless they are a tensor already."""
    if isinstance(value, Tensor) and not value.is_complex():
        return value.detach()
    found = np.asarray(value)
    if found.dtype.kind not in "fiub":
        raise TypeError(f"expected real numbers, got {value!r}")
    return torch.from_numpy(found.astype(np.float64))


def is_number(value: Any) -> bool:
    """Whether ``value`` is one real number of Python or NumPy, and not a bool."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)  # pyright: ignore[reportUnnecessaryIsInstance]


def own(args: Any) -> tuple[Any, ...]:
    """Return extra arguments as a tuple; inference tensors are cloned, as autograd requires."""
    args = args if isinstance(args, tuple) else (args,)
    return tuple(a.clone() if isinstance(a, Tensor) and a.is_inference() else a for a in args)


# Functions as closures ----------------------------------------------------------------------------


def closure_of(
    fun: Function, jac: Function | bool | None, point: torch.nn.Parameter, shown: Shown, seen: Seen
) -> Closure:
    """Return a closure that evaluates ``fun`` at the current value of ``point``.

    Args:
        fun: the function of a point.
        jac: its gradient; True if ``fun`` returns it with the value, None if autograd computes
            it or it is not needed.
        point: the parameter with the point.
        shown: converts points to arguments of ``fun`` and ``jac``.
        seen: records the values of ``fun``.
    """
    native = isinstance(shown(point), Tensor)

    def evaluate(x: Tensor) -> tuple[Tensor, Any]:
        """Return the value at ``x``, and the gradient if ``fun`` returns both."""
        here, slope = x.detach().clone(), None
        answer = fun(x.clone() if native else shown(here))
        if jac is True:
            answer, slope = _both(answer)
        value = _one_number(answer)
        seen.take(here, float(value.item()))
        if isinstance(answer, Tensor) and answer.is_floating_point():
            if not (answer.requires_grad or bool(value.isfinite())):
                answer = answer + 0.0 * x.sum()  # an infinite constant: give it a graph
            return answer.reshape(()), slope  # with its graph
        return value.to(here), slope

    if jac is None or jac is False:
        return lambda: evaluate(point)[0]

    class Known(torch.autograd.Function):
        """A function whose gradient the user supplies."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            value, ctx.gradient = evaluate(x)
            return value.to(x.dtype)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return grads[0] * _slope(ctx.gradient if jac is True else jac(shown(x)), x)

    return lambda: Known.apply(point)  # pyright: ignore


def ranker_of(ranker: Callable[[list[Any]], Ranked], point: Tensor, shown: Shown) -> Ranker:
    """Convert a ranker of points to a ranker of shifts."""
    engine = Engine("eager")

    def rank(shifts: Sequence[Shift]) -> Ranked:
        points: list[Any] = []
        for shift in shifts:
            x = point.detach()
            if shift.direction is not None:
                x = shift.direction.shifted("x", x, shift.scale, engine)
            points.append(shown(x))
        return ranker(points)

    return rank


def _one_number(answer: Any) -> Tensor:
    """Return the value of ``fun`` as a detached tensor of shape ()."""
    try:
        found = numbers(answer)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MinimizeError(f"fun: expected one number, got {answer!r}") from error
    if found.numel() != 1:
        raise MinimizeError(f"fun: expected one number, got the shape {tuple(found.shape)}")
    return found.reshape(())


def _both(answer: Any) -> tuple[Any, Any]:
    """Return value and gradient if ``fun`` returned both."""
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise MinimizeError(f"fun: expected (value, gradient) because of jac=True, got {answer!r}")
    return answer[0], answer[1]


def _slope(answer: Any, x: Tensor) -> Tensor:
    """Return the gradient as a tensor like ``x``."""
    try:
        found = numbers(answer)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MinimizeError(f"jac: expected numbers shaped like x, got {answer!r}") from error
    if found.shape != x.shape:
        raise MinimizeError(
            f"jac: expected the shape {tuple(x.shape)} of x, got {tuple(found.shape)}"
        )
    return found.to(x)

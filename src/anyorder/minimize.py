"""Minimise a plain function, with any method, in one call shaped like scipy's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from anyorder.engine import Engine
from anyorder.errors import AnyOrderError
from anyorder.methods import get
from anyorder.optimizer import Optimizer
from anyorder.oracle.closures import Closure
from anyorder.oracle.gradients import NonFiniteError
from anyorder.oracle.kinds import COMPOSITE
from anyorder.oracle.ledger import Budget, BudgetExhausted, Calls
from anyorder.points.directions import Shift

Point = Any  # a numpy array, a list of numbers or a tensor; the answer comes in the same kind
Status = Literal["budget", "converged", "stopped", "diverged"]

#: Steps without progress after which ``tol`` calls a run converged.
PATIENCE = 10


class MinimizeError(AnyOrderError, ValueError):
    """A function or a start that cannot be used."""


@dataclass(frozen=True, slots=True)
class Result:
    """What :func:`minimize` found.

    Attributes:
        x: the best point seen at the end of a step, in the kind of ``x0``.
        fun: the function's value there; NaN if only an order was ever known.
        success: whether the run ended as planned (budget used, converged, or stopped by callback).
        status: ``budget``, ``converged``, ``stopped`` (by the callback) or ``diverged``.
        message: the same in words.
        calls: the ledger.
        nit: steps taken.
    """

    x: Point
    fun: float
    success: bool
    status: Status
    message: str
    calls: Calls
    nit: int


def minimize(
    fun: Callable[..., Any],
    x0: Point,
    args: tuple[Any, ...] = (),
    *,
    method: str = "mezo",
    jac: Callable[..., Any] | None = None,
    budget: Budget | str = "1000forwards",
    callback: Callable[[Any], Any] | None = None,
    ranker: Callable[[list[Any]], Sequence[int]] | None = None,
    tol: float | None = None,
    **options: Any,
) -> Result:
    """Minimise ``fun`` from ``x0``.

    With a tensor ``x0``, ``fun`` takes a tensor and is differentiated by autograd. With an array,
    ``fun`` takes an array and returns a number: methods that need values or rankings work as they
    are, methods that need gradients use ``jac``.

    Args:
        fun: the function, ``fun(x, *args)``.
        x0: the start; any shape. Its values are not changed.
        args: further arguments of ``fun`` and ``jac``.
        method: name of a method, see ``anyorder list``.
        jac: the gradient, ``jac(x, *args)``, shaped like ``x``; for arrays.
        budget: limits, such as ``"2000values"`` or ``Budget(grads=500)``.
        callback: called after each step with the point; a true answer stops the run.
        ranker: takes candidate points, returns their positions, best first; ``fun`` is not called
            by ranking methods then.
        tol: converged when 10 steps in a row have not lowered the value by more than this
            (default: run to the budget; nothing converges by a criterion nobody saw).
        options: hyper-parameters of the method.

    Returns:
        A :class:`Result`. One value is set aside from the budget to ask for at the end point.

    Raises:
        MinimizeError: ``x0`` is not finite numbers, a derivative is needed and there is none, the
            function does not return one number, or an option means nothing to the method.

    Example:
        >>> import numpy as np
        >>> from anyorder import minimize
        >>> result = minimize(lambda x: ((x - 1) ** 2).sum(), np.zeros(4), method="mezo",
        ...                   lr=0.05, budget="2000values")
        >>> result.status, bool(result.fun < 1e-6), result.calls.values
        ('budget', True, 1999)
    """
    wrap = _kind(x0)
    start = _start(x0)
    point = torch.nn.Parameter(start.clone())
    limits = Budget.parse(budget) if isinstance(budget, str) else replace(budget)
    chosen = get(method)
    _check_use(chosen, options, ranker=ranker is not None, jac=jac is not None, tol=tol is not None)
    closure = _closure(fun, jac, args, point, wrap, chosen.needs)
    shown = None if ranker is None else _shown(ranker, point, wrap)
    optimizer = chosen([("x", point)], budget=_reserved(limits), ranker=shown, **options)
    track = _Track(optimizer, start, tol)
    stop = (lambda: False) if callback is None else lambda: callback(wrap(point.detach().clone()))
    status, message = _run(optimizer, closure, point, track, stop)
    with torch.no_grad(), optimizer.answer():
        if ranker is not None:
            track.best = point.detach().clone()
        elif status != "diverged":
            track.see(point.detach(), float(closure()))
            optimizer.calls.values += 1
    return Result(
        x=wrap(track.best),
        fun=track.lowest if np.isfinite(track.lowest) else float("nan"),
        success=status != "diverged",
        status=status,
        message=message,
        calls=optimizer.calls,
        nit=optimizer.steps,
    )


class _Track:
    """The best point whose value is known, and whether values still fall."""

    def __init__(self, optimizer: Optimizer, start: Tensor, tol: float | None) -> None:
        self.optimizer, self.tol = optimizer, tol
        self.best, self.lowest, self.stale = start.clone(), float("inf"), 0
        # A gradient method sees the value where its step began; others only values nearby.
        self.exact = bool(optimizer.needs & {"grad"})
        self.near = float("inf")
        self.climb = -1.0 if optimizer.maximize else 1.0

    def see(self, point: Tensor, value: float) -> None:
        """Take note of the value at a point."""
        if self.climb * value < self.climb * self.lowest or not np.isfinite(self.lowest):
            self.best, self.lowest = point.clone(), value

    def converged(self, before: Tensor, value: float) -> bool:
        """Take note of a step; true when ten in a row brought less than ``tol``."""
        if self.exact:
            self.see(before, value)
        fell = self.climb * (self.near - value) if np.isfinite(self.near) else float("inf")
        if self.tol is None or not np.isfinite(value):
            return False
        self.stale = self.stale + 1 if fell <= self.tol else 0
        if fell > 0:
            self.near = value
        return self.stale >= PATIENCE


def _run(
    optimizer: Optimizer,
    closure: Closure,
    point: Tensor,
    track: _Track,
    stop: Callable[[], Any],
) -> tuple[Status, str]:
    try:
        while True:
            before = point.detach().clone()
            loss = optimizer.step(closure)
            if track.converged(before, float("nan") if loss is None else float(loss)):
                return "converged", f"{PATIENCE} steps in a row brought at most {track.tol:g}"
            if stop():
                return "stopped", "the callback asked to stop"
    except BudgetExhausted as end:
        return "budget", str(end)
    except NonFiniteError as error:
        return "diverged", str(error)


def _reserved(limits: Budget) -> Budget:
    """The budget less the one value that is asked at the end."""
    if limits.values is not None:
        limits.values = max(limits.values - 1, 1)
    if limits.forwards is not None:
        limits.forwards = max(limits.forwards - limits.rates.get("values", 1.0), 1.0)
    return limits


def _check_use(
    chosen: type[Optimizer], options: dict[str, Any], *, ranker: bool, jac: bool, tol: bool
) -> None:
    """Refuse what the method would have to ignore, or could only get wrong."""
    if chosen.needs & COMPOSITE:
        raise MinimizeError(
            f"{chosen.__name__} needs a function in two parts, outputs and their loss; step the "
            "optimizer itself, with anyorder.Composite(outputs, loss)"
        )
    if ranker and "rank" not in chosen.needs:
        raise MinimizeError(f"ranker: {chosen.__name__} never asks for an order; leave it out")
    if tol and chosen.needs == frozenset({"rank"}):
        raise MinimizeError(f"tol: {chosen.__name__} never sees a value; use callback to stop it")
    exact = options.get("products", "exact") == "exact"
    if jac and "hessian" in chosen.needs and exact:
        raise MinimizeError(
            f"{chosen.__name__} needs second derivatives, which jac does not give; pass "
            "products='finite' for differences of gradients, or start from a tensor, without jac"
        )


def _start(x0: Point) -> Tensor:
    if isinstance(x0, Tensor):
        start = x0.detach()
    elif np.iscomplexobj(x0):
        raise MinimizeError(f"x0: expected real numbers, got {x0!r}")
    else:
        try:
            start = torch.from_numpy(np.array(x0, dtype=np.float64))
        except (TypeError, ValueError) as error:
            raise MinimizeError(f"x0: expected numbers, got {x0!r}") from error
    if not start.is_floating_point() or not start.numel() or not bool(start.isfinite().all()):
        raise MinimizeError(
            f"x0: expected a non-empty array of finite real numbers, got {x0!r}; for a tensor "
            "use a floating dtype"
        )
    return start


def _kind(x0: Point) -> Callable[[Tensor], Point]:
    """How points are shown to the user: in the kind of ``x0``."""
    if isinstance(x0, Tensor):
        return lambda tensor: tensor.detach()
    return lambda tensor: tensor.detach().cpu().numpy()


def _closure(
    fun: Callable[..., Any],
    jac: Callable[..., Any] | None,
    args: tuple[Any, ...],
    point: torch.nn.Parameter,
    wrap: Callable[[Tensor], Point],
    needs: frozenset[str],
) -> Closure:
    native = not isinstance(wrap(point), np.ndarray)
    if native and jac is None:
        return lambda: fun(point, *args)
    if jac is None and needs & {"grad", "hessian"}:
        raise MinimizeError(
            "this method needs gradients; pass jac=, or start from a tensor and compute with torch"
        )

    def number(x: Tensor) -> Tensor:
        value = fun(x if native else wrap(x).copy(), *args)
        try:
            found = torch.as_tensor(value, dtype=x.dtype, device=x.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise MinimizeError(f"fun: expected one number, got {value!r}") from error
        if found.numel() != 1:
            raise MinimizeError(f"fun: expected one number, got the shape {tuple(found.shape)}")
        return found.reshape(())

    if jac is None:
        return lambda: number(point.detach())

    class Known(torch.autograd.Function):
        """A function whose gradient the user supplies."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return number(x.detach())

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            slope = torch.as_tensor(jac(wrap(x), *args), dtype=x.dtype, device=x.device)
            if slope.shape != x.shape:
                raise MinimizeError(
                    f"jac: expected the shape {tuple(x.shape)} of x, got {tuple(slope.shape)}"
                )
            return grads[0] * slope

    return lambda: Known.apply(point)  # pyright: ignore


def _shown(
    ranker: Callable[[list[Any]], Sequence[int]], point: Tensor, wrap: Callable[[Tensor], Point]
) -> Callable[[Sequence[Shift]], Sequence[int]]:
    """A ranker of points as a ranker of shifts."""
    engine = Engine("eager")

    def rank(shifts: Sequence[Shift]) -> Sequence[int]:
        points: list[Any] = []
        for shift in shifts:
            x = point.detach()
            if shift.direction is not None:
                x = shift.direction.shifted("x", x, shift.scale, engine)
            points.append(wrap(x.clone()))
        return ranker(points)

    return rank

"""Minimise a plain function with any method, with an interface like SciPy's."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from anyorder.methods import get
from anyorder.optimizer import Optimizer
from anyorder.oracle.closures import Closure, Ranked
from anyorder.oracle.gradients import NonFiniteError
from anyorder.oracle.kinds import COMPOSITE
from anyorder.oracle.ledger import Budget, BudgetExhausted, Calls
from anyorder.plain_function import (
    MinimizeError,
    Point,
    Seen,
    Shown,
    closure_of,
    is_number,
    kind,
    own,
    plain_settings,
    ranker_of,
    start_of,
)

Status = Literal["budget", "converged", "stopped", "diverged"]

#: Steps without progress after which ``tol`` calls a run converged.
PATIENCE = 10
#: Skipped steps in a row (``nonfinite="skip"``) after which a run ends.
SKIPS = 100
#: The units of the ledger that a method uses, by need.
SPENT = {
    "value": {"values"},
    "grad": {"grads"},
    "hessian": {"grads", "products"},
    "rank": {"rankings", "ranked"},
    "jvp": {"jvps"},
}


@dataclass(frozen=True, slots=True)
class Result:
    """The result of :func:`minimize`.

    Attributes:
        x: the best evaluated point, of the same type as ``x0``. With a ranker no values are known,
            and it is the final point of the method.
        fun: the value at ``x``; NaN if unknown.
        success: whether the run ended normally (budget used, converged, or stopped by the
            callback), with a known value that is not worse than at the start.
        status: ``budget``, ``converged``, ``stopped`` (by the callback) or ``diverged``: a value
            or gradient was not finite, or the final point is worse than the start.
        message: description of the status.
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


@dataclass(frozen=True, slots=True)
class Intermediate:
    """The argument of callbacks with a parameter named ``intermediate_result``.

    Attributes:
        x: the best evaluated point so far.
        fun: the value there; NaN if none is known yet.
        nit: steps taken.
    """

    x: Point
    fun: float
    nit: int


def minimize(
    fun: Callable[..., Any],
    x0: Point,
    args: Any = (),
    *,
    method: str = "mezo",
    jac: Callable[..., Any] | bool | None = None,
    budget: Budget | str = "1000forwards",
    callback: Callable[..., Any] | None = None,
    ranker: Callable[[list[Any]], Ranked] | None = None,
    tol: float | None = None,
    **options: Any,
) -> Result:
    """Minimise ``fun`` from ``x0``.

    If ``x0`` is a tensor, ``fun`` takes a tensor and is differentiated by autograd. If it is an
    array, ``fun`` takes an array and returns a number: methods that need values or rankings work
    without more, methods that need gradients use ``jac``. Functions receive a copy of the point and
    may modify it.

    The result is the best of all points at which ``fun`` was evaluated, including points that a
    method only evaluates and does not move to. A value or gradient that is not finite ends the run
    with the status ``diverged``; with ``nonfinite="skip"`` that step is skipped and the run
    continues, until 100 steps in a row were skipped.

    Args:
        fun: the function, ``fun(x, *args)``.
        x0: the initial point, of any shape. It is not modified.
        args: further arguments of ``fun`` and ``jac``; a value that is not a tuple is one argument.
        method: name of a method, see ``anyorder list``.
        jac: the gradient, ``jac(x, *args)``, shaped like ``x``; or True if ``fun`` returns the
            value and the gradient.
        budget: limits, such as ``"2000values"`` or ``Budget(grads=500)``, in units that the method
            uses. One value of it is reserved for an evaluation at the final point.
        callback: called after each step with the current point, or, if its parameter is named
            ``intermediate_result``, with an :class:`Intermediate`. Returning a true value or
            raising StopIteration stops the run.
        ranker: takes candidate points and returns their positions, best first, those that tie in a
            list of their own; ranking methods then do not call ``fun``.
        tol: converged when 10 steps in a row have not lowered the value by more than this
            (default: run until the budget is used).
        options: hyperparameters of the method, and ``seed``, ``maximize``, ``nonfinite``, ...

    Raises:
        MinimizeError: ``x0`` is not finite, a required derivative is missing, the function does not
            return one number, or the method does not use an option.

    Example:
        >>> import numpy as np
        >>> from anyorder import minimize
        >>> result = minimize(lambda x: ((x - 1) ** 2).sum(), np.zeros(4), method="mezo",
        ...                   lr=0.05, budget="2000values")
        >>> result.status, bool(result.fun < 1e-6), result.calls.values
        ('budget', True, 1999)
    """
    chosen = get(method)
    _check_use(chosen, options, x0=x0, ranker=ranker, jac=jac, tol=tol)
    _check_kinds(tol, options, fun=fun, callback=callback, ranker=ranker)
    limits = _limits(budget, chosen, options, endless=tol is None and callback is None)
    with plain_settings() as users:
        shown, start, args = kind(x0), start_of(x0), own(args)
        point = torch.nn.Parameter(start.clone())
        seen = Seen(start, -1.0 if options.get("maximize") else 1.0)
        slope = users(lambda x: jac(x, *args)) if callable(jac) else jac
        closure = closure_of(users(lambda x: fun(x, *args)), slope, point, shown, seen)
        judge = None if ranker is None else ranker_of(users(ranker), point, shown)
        optimizer = chosen([("x", point)], budget=limits, ranker=judge, **options)
        stop = _stop(callback, users, optimizer, point, shown, seen)
        # Reserve one value of the budget for the end.
        optimizer.calls.values = reserved = int(ranker is None)
        status, message = _run(optimizer, closure, seen, stop, tol)
        optimizer.calls.values -= reserved
        with optimizer.answer():
            end = point.detach().clone()
            last = None if ranker is not None else _last(optimizer, closure, end, seen, limits)
        status, message, success = _judged(status, message, last, seen)
        best = seen.best if ranker is None else end
        calls = optimizer.calls
        return Result(shown(best), seen.fun, success, status, message, calls, optimizer.steps)


# The run ------------------------------------------------------------------------------------------


def _run(
    optimizer: Optimizer, closure: Closure, seen: Seen, stop: Callable[[], bool], tol: float | None
) -> tuple[Status, str]:
    """Take steps until the run ends."""
    near, stale, skipped = math.nan, 0, 0
    try:
        while skipped < SKIPS:
            steps = optimizer.steps
            loss = optimizer.step(closure)
            skipped = skipped + 1 if optimizer.steps == steps else 0
            seen.opening = not optimizer.steps
            if tol is not None and math.isfinite(value := float(loss)):
                fell = seen.sign * (near - value)
                stale = stale + 1 if fell <= tol else 0
                near = near if fell <= 0 else value
                if stale >= PATIENCE:
                    return "converged", f"{PATIENCE} steps in a row brought at most {tol:g}"
            if stop():
                return "stopped", "the callback stopped the run"
    except BudgetExhausted as end:
        return "budget", str(end)
    except NonFiniteError as error:
        return "diverged", str(error)
    return "diverged", f"{SKIPS} steps in a row were skipped: the value or gradient was not finite"


def _last(
    optimizer: Optimizer, closure: Closure, end: Tensor, seen: Seen, limits: Budget
) -> float | None:
    """Return the value at the final point; None if unknown.

    The parameters hold that point.
    """
    if seen.last is not None and torch.equal(seen.last[0], end):
        return seen.last[1]
    if not bool(end.isfinite().all()):
        return math.nan
    try:
        replace(limits, steps=None, seconds=None).check(optimizer.calls, {"values": 1})
    except BudgetExhausted:  # the budget is smaller than one value
        return None
    optimizer.budget, optimizer.nonfinite = None, "ignore"  # the final value is not limited
    optimizer.oracle(closure).value()
    return None if seen.last is None else seen.last[1]


def _judged(
    status: Status, message: str, last: float | None, seen: Seen
) -> tuple[Status, str, bool]:
    """Determine status, message and success from the values."""
    if seen.last is not None and math.isnan(seen.fun):
        return status, f"{message}; there was no finite value", False
    if last is not None and seen.worse(last):
        kept = f"the final value {last:g} is worse than the initial value {seen.began():g}"
        message = f"{message}; {kept}. The result is the best evaluated point; lower the step size"
        return ("stopped" if status == "stopped" else "diverged"), message, False
    return status, message, status != "diverged"


def _stop(
    callback: Callable[..., Any] | None,
    users: Callable[[Callable[..., Any]], Callable[..., Any]],
    optimizer: Optimizer,
    point: Tensor,
    shown: Shown,
    seen: Seen,
) -> Callable[[], bool]:
    """Return a function that says whether the callback stops the run."""
    if callback is None:
        return lambda: False
    named, call = takes_intermediate_result(callback), users(callback)

    def stop() -> bool:
        try:
            if not named:
                return bool(call(shown(point)))
            best = point if seen.last is None else seen.best
            found = Intermediate(shown(best), seen.fun, optimizer.steps)
            return bool(call(intermediate_result=found))
        except StopIteration:
            return True

    return stop


def takes_intermediate_result(callback: Callable[..., Any]) -> bool:
    """Whether a callback is one that SciPy calls with ``intermediate_result=``."""
    try:
        return set(inspect.signature(callback).parameters) == {"intermediate_result"}
    except (TypeError, ValueError):  # some built-in functions have no signature
        return False


# Arguments ---------------------------------------------------------------------------------------


def _limits(
    budget: Any, chosen: type[Optimizer], options: dict[str, Any], *, endless: bool
) -> Budget:
    """Return a copy of the budget if the method can use it up; otherwise raise."""
    spent = set[str]().union(*(SPENT.get(need, set()) for need in chosen.needs))
    if options.get("products") == "finite":
        spent.discard("products")
    unit = next((u for u in ("grads", "values", "rankings") if u in spent), "forwards")
    if not isinstance(budget, str | Budget):
        number = budget if isinstance(budget, int) and budget > 1 else 500
        raise MinimizeError(
            f"budget: expected a number with its unit, got {budget!r}; write '{number}{unit}', "
            "'60s' or a Budget"
        )
    limits = Budget.parse(budget) if isinstance(budget, str) else replace(budget)
    if endless and not limits.limits():
        raise MinimizeError(
            f"budget: expected a limit, such as Budget({unit}=500); without one, tol and callback "
            "nothing ends the run"
        )
    for name in limits.limits():
        priced = any(limits.rates.get(kind, 0.0) > 0 for kind in spent)
        if not (name in spent or name in ("steps", "seconds") or (name == "forwards" and priced)):
            raise MinimizeError(
                f"budget: {chosen.__name__} never spends {name}, so a limit in {name} never "
                f"ends the run; use {', '.join(sorted(spent))}, forwards, steps or seconds"
            )
    return limits


def _check_kinds(tol: Any, options: dict[str, Any], **functions: Any) -> None:
    """Refuse values of the wrong kind: nan, 1.7 as a seed, "no" as a flag."""
    for name, function in functions.items():
        if not (callable(function) or (function is None and name != "fun")):
            raise MinimizeError(f"{name}: expected a function, got {function!r}")
    if tol is not None and not (is_number(tol) and 0 <= tol < math.inf):
        raise MinimizeError(f"tol: expected a finite number >= 0 or None, got {tol!r}")
    maximize, seed = options.get("maximize", False), options.get("seed", 0)
    if not isinstance(maximize, bool):
        raise MinimizeError(f"maximize: expected True or False, got {maximize!r}")
    if isinstance(seed, bool) or not hasattr(type(seed), "__index__"):
        raise MinimizeError(f"seed: expected a whole number, got {seed!r}")


def _check_use(
    chosen: type[Optimizer],
    options: dict[str, Any],
    *,
    x0: Point,
    ranker: Any,
    jac: Any,
    tol: float | None,
) -> None:
    """Refuse options that the method cannot use."""
    if chosen.needs & COMPOSITE:
        raise MinimizeError(
            f"{chosen.__name__} needs a composite function, a loss of outputs; call the "
            "optimizer directly, with anyorder.Composite(outputs, loss)"
        )
    if not (jac is None or isinstance(jac, bool) or callable(jac)):
        raise MinimizeError(
            f"jac: expected a function, or True if fun returns value and gradient, got {jac!r}"
        )
    if "jvp" in chosen.needs and (jac or not isinstance(x0, Tensor)):
        raise MinimizeError(
            f"{chosen.__name__} differentiates the function in forward mode; start from a tensor, "
            "compute with torch, and leave jac out"
        )
    slopes = bool(chosen.needs & {"grad", "hessian"})
    if callable(jac) and not slopes:
        raise MinimizeError(f"jac: {chosen.__name__} uses no gradient; remove jac")
    if slopes and not jac and not isinstance(x0, Tensor):
        raise MinimizeError(
            f"{chosen.__name__} needs gradients; pass jac=, or start from a tensor and compute "
            "with torch"
        )
    if ranker is not None and "rank" not in chosen.needs:
        raise MinimizeError(f"ranker: {chosen.__name__} uses no ranking; remove ranker")
    if tol is not None and chosen.needs == frozenset({"rank"}):
        raise MinimizeError(f"tol: {chosen.__name__} uses no values; stop it with callback")
    exact = options.get("products", "exact") == "exact"
    if jac and "hessian" in chosen.needs and exact:
        raise MinimizeError(
            f"{chosen.__name__} needs second derivatives, which jac does not return; pass "
            "products='finite' for differences of gradients, or start from a tensor, without jac"
        )

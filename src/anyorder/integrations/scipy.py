"""Methods of this package as ``method=`` of ``scipy.optimize.minimize``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from anyorder.methods import get
from anyorder.minimize import Intermediate, Result, minimize, takes_intermediate_result
from anyorder.oracle.ledger import Budget
from anyorder.plain_function import MinimizeError, is_number


def method(name: str, **settings: Any) -> Callable[..., Any]:
    """Return a callable for ``scipy.optimize.minimize(fun, x0, method=...)``.

    Arguments have their usual meaning: ``args``, ``jac`` (a function or True), ``tol``, and in
    ``options`` ``maxiter`` (number of steps; the only limit unless there is a ``budget``) and
    ``disp`` (print how the run ended). A callback receives the point after each step, or, if its
    parameter is named ``intermediate_result``, the best point so far and its value as ``x`` and
    ``fun``. The run stops if it returns a true value or raises ``StopIteration``. Bounds are
    accepted only if they are infinite.

    Args:
        name: a method of this package.
        settings: its hyper-parameters and ``budget``; scipy's ``options`` take precedence.

    Returns:
        A function that returns a ``scipy.optimize.OptimizeResult`` with ``x, fun, success, status,
        message, nit, nfev, njev, calls``. The ``status`` is 1 if the callback stopped the run,
        otherwise 0 after a success (reaching ``maxiter`` counts as one) and 2 after a failure.

    Raises:
        ValueError: bounds, constraints, hess or hessp were passed; no method here supports them.

    Example:
        >>> import numpy as np
        >>> from scipy.optimize import minimize
        >>> from anyorder.integrations.scipy import method
        >>> found = minimize(lambda x: (x ** 2).sum(), np.ones(2), method=method("mezo", lr=0.1))
        >>> bool(found.fun < 1e-6)
        True
    """

    def run(
        fun: Callable[..., Any],
        x0: Any,
        args: Any = (),
        *,
        jac: Any = None,
        callback: Callable[..., Any] | None = None,
        bounds: Any = None,
        constraints: Any = (),
        hess: Any = None,
        hessp: Any = None,
        **options: Any,
    ) -> Any:
        if constraints or not _unbounded(bounds):
            raise MinimizeError(f"{name}: bounds and constraints are not supported; remove them")
        if hess is not None or hessp is not None:
            raise MinimizeError(
                f"{name}: takes curvature from jac, not from hess or hessp; remove them"
            )
        chosen = {**settings, **options}
        if not isinstance(shown := chosen.pop("disp", False), int):  # a bool is an int
            raise MinimizeError(f"disp: expected True or False, got {shown!r}")
        chosen |= _limited(chosen.pop("maxiter", None), chosen.get("budget"))
        if _beside_the_value(fun, jac) and not get(name).needs & {"grad", "hessian"}:
            jac = None  # minimize() always passes it
        stop = _relayed(callback)
        found = minimize(fun, x0, args, method=name, jac=jac, callback=stop, **chosen)
        if shown:  # the purpose of the option
            sys.stdout.write(f"{name}: {_words(found)}\n")
        return _result(found, by_hand="ranker" in chosen)

    return run


def _result(found: Result, *, by_hand: bool) -> Any:
    """Convert a result to scipy's; rankings are not evaluations of the function."""
    from scipy.optimize import OptimizeResult

    return OptimizeResult(
        x=found.x,
        fun=found.fun,
        success=found.success,
        status=1 if found.status == "stopped" else 0 if found.success else 2,
        message=found.message,
        nit=found.nit,
        nfev=found.calls.values + found.calls.grads + (0 if by_hand else found.calls.ranked),
        njev=found.calls.grads,
        calls=found.calls,
    )


def _words(found: Result) -> str:
    return f"{found.status}: {found.message}. Value {found.fun:g} after {found.nit} steps"


def _beside_the_value(fun: Any, jac: Any) -> bool:
    """Whether ``jac`` is scipy's wrapper for ``jac=True``: a method of the function it passes."""
    ours = getattr(jac, "__self__", None) is fun
    return jac is not None and ours and type(fun).__module__.startswith("scipy.")


def _limited(maxiter: Any, budget: Budget | str | None) -> dict[str, Any]:
    """Return the budget as an option, with ``maxiter`` as its limit on steps."""
    if maxiter is None:
        return {} if budget is None else {"budget": budget}
    if not (is_number(maxiter) and maxiter >= 1 and float(maxiter).is_integer()):
        raise MinimizeError(f"maxiter: expected a whole number >= 1, got {maxiter!r}")
    steps = int(maxiter)
    if budget is None:
        return {"budget": Budget(steps=steps)}
    limits = Budget.parse(budget) if isinstance(budget, str) else budget
    if not isinstance(limits, Budget):  # pyright: ignore[reportUnnecessaryIsInstance]
        return {"budget": limits}  # minimize() raises the error
    return {"budget": replace(limits, steps=min(steps, limits.steps or steps))}


def _unbounded(bounds: Any) -> bool:
    """Whether bounds are absent or infinite."""
    if bounds is None:
        return True
    if hasattr(bounds, "lb"):
        import numpy as np

        return bool(np.all(np.isneginf(bounds.lb)) and np.all(np.isposinf(bounds.ub)))
    lows, highs = (None, -float("inf")), (None, float("inf"))
    return all(low in lows and high in highs for low, high in bounds)


def _relayed(callback: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """Adapt a callback for scipy to this package."""
    if callback is None or not takes_intermediate_result(callback):
        return callback
    from scipy.optimize import OptimizeResult

    def relay(intermediate_result: Intermediate) -> Any:
        best = intermediate_result
        return callback(intermediate_result=OptimizeResult(x=best.x, fun=best.fun, nit=best.nit))

    return relay

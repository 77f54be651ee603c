"""Methods of this package as ``method=`` of ``scipy.optimize.minimize``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from anyorder.minimize import minimize


def method(name: str, **settings: Any) -> Callable[..., Any]:
    """A callable for ``scipy.optimize.minimize(fun, x0, method=...)``.

    Args:
        name: a method of this package.
        settings: its hyper-parameters and ``budget``; those given to scipy as ``options`` win.

    Returns:
        A function that returns a ``scipy.optimize.OptimizeResult`` with ``x, fun, success, status,
        message, nit, nfev, njev, calls``. A callback stops the run by a true answer or, as scipy's
        own methods have it, by ``StopIteration``; one that names its argument
        ``intermediate_result`` gets the point as ``intermediate_result.x``.

    Raises:
        ValueError: bounds, constraints, hess or hessp were given; no method here takes them.

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
        args: tuple[Any, ...] = (),
        *,
        jac: Callable[..., Any] | None = None,
        callback: Callable[..., Any] | None = None,
        bounds: Any = None,
        constraints: Any = (),
        hess: Any = None,
        hessp: Any = None,
        **options: Any,
    ) -> Any:
        from scipy.optimize import OptimizeResult

        if bounds is not None or constraints:
            raise ValueError(f"{name}: bounds and constraints are not supported; remove them")
        if hess is not None or hessp is not None:
            raise ValueError(
                f"{name}: takes curvature from jac, not from hess or hessp; remove them"
            )
        chosen = {**settings, **options}
        stop = None if callback is None else _stop(callback)
        found = minimize(fun, x0, args, method=name, jac=jac, callback=stop, **chosen)
        by_hand = "ranker" in chosen  # then the function was not asked for the order
        codes = {"budget": 0, "converged": 0, "stopped": 1, "diverged": 2}
        return OptimizeResult(
            x=found.x,
            fun=found.fun,
            success=found.success,
            status=codes[found.status],
            message=found.message,
            nit=found.nit,
            nfev=found.calls.values + found.calls.grads + (0 if by_hand else found.calls.ranked),
            njev=found.calls.grads,
            calls=found.calls,
        )

    return run


def _stop(callback: Callable[..., Any]) -> Callable[[Any], bool]:
    """A callback of scipy's as one of ours."""
    from scipy.optimize import OptimizeResult

    named = list(inspect.signature(callback).parameters) == ["intermediate_result"]

    def stop(x: Any) -> bool:
        try:
            answer = callback(intermediate_result=OptimizeResult(x=x)) if named else callback(x)
        except StopIteration:
            return True
        return bool(answer)

    return stop

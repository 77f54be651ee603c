"""Methods of this package as ``method=`` of ``scipy.optimize.minimize``."""

from __future__ import annotations

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
        message, nit, nfev, njev, calls``.

    Raises:
        ValueError: bounds or constraints were given; no method here takes them.

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
        callback: Callable[[Any], Any] | None = None,
        bounds: Any = None,
        constraints: Any = (),
        hess: Any = None,
        hessp: Any = None,
        **options: Any,
    ) -> Any:
        from scipy.optimize import OptimizeResult

        if bounds is not None or constraints:
            raise ValueError(f"{name}: bounds and constraints are not supported; remove them")
        del hess, hessp  # products come from the method's own oracle
        found = minimize(
            fun, x0, args, method=name, jac=jac, callback=callback, **{**settings, **options}
        )
        codes = {"budget": 0, "converged": 0, "stopped": 1, "diverged": 2}
        return OptimizeResult(
            x=found.x,
            fun=found.fun,
            success=found.success,
            status=codes[found.status],
            message=found.message,
            nit=found.nit,
            nfev=found.calls.values + found.calls.grads,
            njev=found.calls.grads,
            calls=found.calls,
        )

    return run

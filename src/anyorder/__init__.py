"""Optimisation with rankings, function values, gradients or curvature products, for PyTorch.

All methods have the same interface, ``loss = optimizer.step(closure)``; see
:mod:`anyorder.optimizer`. All evaluations are counted; see :mod:`anyorder.oracle`. The classes of
all methods are available here (``anyorder.AdamW``); they are found by scanning
:mod:`anyorder.methods`.
"""

from __future__ import annotations

from typing import Any

from anyorder.errors import AnyOrderError
from anyorder.minimize import Result, minimize
from anyorder.optimizer import Optimizer
from anyorder.optimizer.population import Population
from anyorder.oracle import Oracle
from anyorder.oracle.closures import Composite
from anyorder.oracle.ledger import Budget, BudgetExhausted, Calls

__version__ = "0.1.0"

__all__ = [
    "AnyOrderError",
    "Budget",
    "BudgetExhausted",
    "Calls",
    "Composite",
    "Optimizer",
    "Oracle",
    "Population",
    "Result",
    "minimize",
]


def __getattr__(name: str) -> Any:
    from anyorder import methods

    if not name.startswith("_"):
        for method in map(methods.get, methods.names()):
            if method.__name__ == name:
                return method
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    from anyorder import methods

    return sorted([*globals(), *(methods.get(name).__name__ for name in methods.names())])

"""What a method may ask of a closure: values, rankings, gradients, curvature; all of it counted."""

from __future__ import annotations

from anyorder.oracle.closures import Closure, ClosureError, Composite, Ranker
from anyorder.oracle.gradients import NonFiniteError
from anyorder.oracle.ledger import Budget, BudgetExhausted, Calls
from anyorder.oracle.oracle import Oracle

__all__ = [
    "Budget",
    "BudgetExhausted",
    "Calls",
    "Closure",
    "ClosureError",
    "Composite",
    "NonFiniteError",
    "Oracle",
    "Ranker",
]

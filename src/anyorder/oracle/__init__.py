"""Counted evaluations of a closure: values, rankings, gradients and curvature."""

from __future__ import annotations

from anyorder.oracle.backward_done import BackwardDone
from anyorder.oracle.closure_oracle import ClosureOracle
from anyorder.oracle.closures import Closure, ClosureError, Composite, Ranker
from anyorder.oracle.gradients import NonFiniteError
from anyorder.oracle.ledger import Budget, BudgetExhausted, Calls
from anyorder.oracle.oracle import NeedsError, Oracle

__all__ = [
    "BackwardDone",
    "Budget",
    "BudgetExhausted",
    "Calls",
    "Closure",
    "ClosureError",
    "ClosureOracle",
    "Composite",
    "NeedsError",
    "NonFiniteError",
    "Oracle",
    "Ranker",
]

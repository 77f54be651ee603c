"""Problems: a model, its data, its loss and its evaluation."""

from __future__ import annotations

from anyorder.problems.base import Problem, ProblemError, evaluating, minibatch, move, seeded
from anyorder.problems.check import check
from anyorder.problems.registry import load, names

__all__ = [
    "Problem",
    "ProblemError",
    "check",
    "evaluating",
    "load",
    "minibatch",
    "move",
    "names",
    "seeded",
]

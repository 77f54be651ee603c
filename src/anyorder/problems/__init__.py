"""Problems: a model, its data, its loss and its evaluation."""

from __future__ import annotations

from anyorder.problems._trees import move
from anyorder.problems.base import Problem, ProblemError, evaluating, minibatch, seeded
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

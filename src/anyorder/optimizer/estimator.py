"""Estimators compute the gradient that a rule uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from anyorder.oracle import Oracle


class Estimator(Protocol):
    """Estimates the gradient from evaluations of an oracle.

    Attributes:
        needs: what it needs from the oracle.
        hypers: hyperparameters that it reads from the first group, declared with
            :func:`anyorder.hyper.hyper`.
    """

    @property
    def needs(self) -> frozenset[str]:
        """What it needs from the oracle."""
        ...

    @property
    def hypers(self) -> Mapping[str, Any]:
        """The hyperparameters that it reads."""
        ...

    def __call__(self, method: Any, oracle: Oracle) -> tuple[Tensor, list[Tensor | None]]:
        """Evaluate the oracle and return an estimate.

        Args:
            method: the optimizer, for its ``direction()``, ``named_params()`` and
                ``param_groups``.
            oracle: evaluates the closure.

        Returns:
            The loss, shape () (NaN if it was not evaluated), and an estimate for each of
            ``method.named_params()``, or ``None``.
        """
        ...


@dataclass(frozen=True)
class Backpropagation:
    """The exact gradient."""

    needs: frozenset[str] = frozenset({"grad"})
    hypers: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __call__(self, method: Any, oracle: Oracle) -> tuple[Tensor, list[Tensor | None]]:
        """Compute one gradient."""
        return oracle.grad()

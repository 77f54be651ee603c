"""Estimators: where the gradient that a rule descends by comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from anyorder.oracle import Oracle


class Estimator(Protocol):
    """Makes an estimate of the gradient from what an oracle answers.

    Attributes:
        needs: what it asks for.
        hypers: the settings it reads from the first group, declared with
            :func:`anyorder.hyper.hyper`.
    """

    @property
    def needs(self) -> frozenset[str]:
        """What it asks for."""
        ...

    @property
    def hypers(self) -> Mapping[str, Any]:
        """The settings it reads."""
        ...

    def __call__(self, method: Any, oracle: Oracle) -> tuple[Tensor, list[Tensor | None]]:
        """Ask, and estimate.

        Args:
            method: the optimizer; its ``direction()``, ``named_params()`` and ``param_groups`` are
                there to be used.
            oracle: answers questions about the closure.

        Returns:
            The loss, shape () (NaN if none was seen), and the estimate for each of
            ``method.named_params()``, ``None`` where there is none.
        """
        ...


@dataclass(frozen=True)
class Backpropagation:
    """The gradient itself."""

    needs: frozenset[str] = frozenset({"grad"})
    hypers: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __call__(self, method: Any, oracle: Oracle) -> tuple[Tensor, list[Tensor | None]]:
        """One gradient."""
        return oracle.grad()

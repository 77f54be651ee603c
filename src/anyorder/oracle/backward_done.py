"""Gradients that the user made by ``backward()``, in the form in which a method asks for them."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from anyorder.oracle.gradients import (
    Nonfinite,
    clipped,
    refuse_sparse,
    require_finite,
    unknown_loss,
)
from anyorder.oracle.ledger import Budget, Calls


class Owner(Protocol):
    """What is needed of an optimizer."""

    budget: Budget | None
    calls: Calls
    maximize: bool
    nonfinite: Nonfinite
    param_groups: list[dict[str, Any]]

    def named_params(self) -> dict[str, Tensor]:
        """The trainable parameters by name."""
        ...


class Given:
    """Gradients the user has made, in the form ``update`` asks for them."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.seen: list[Tensor | None] = []

    def grad(self) -> tuple[Tensor, list[Tensor | None]]:
        """The gradients found in ``.grad``; the loss is not known."""
        owner = self.owner
        named = owner.named_params()
        if owner.budget is not None:
            owner.budget.check(owner.calls, {"grads": 1})
        grads = [p.grad for p in named.values()]
        refuse_sparse(named, grads)
        owner.calls.grads += 1
        require_finite(owner.nonfinite, None, grads, list(named))
        if owner.maximize:
            grads = [None if g is None else -g for g in grads]
        grads = clipped(grads, owner.param_groups[0].get("clip_norm"))
        self.seen = grads
        return unknown_loss(), grads

    def slopes(self) -> dict[int, Tensor]:
        """The gradients of this step by the identity of their parameters."""
        named = self.owner.named_params().values()
        return {id(p): g for p, g in zip(named, self.seen, strict=True) if g is not None}

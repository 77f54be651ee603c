"""A uniform ``step`` for any optimizer, with counted oracle calls and a budget."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from anyorder.compare.plan.entrants import Entrant
from anyorder.errors import AnyOrderError
from anyorder.optimizer import Optimizer
from anyorder.oracle.closures import Closure, one_gradient
from anyorder.oracle.ledger import Budget, BudgetExhausted, Calls

#: A foreign optimizer does not detect divergence: its run ends after this many non-finite losses in
#: a row.
HOPELESS = 20


class Diverged(AnyOrderError, RuntimeError):  # noqa: N818 - a regular end of a run
    """The loss was not finite several times in a row."""


class Native:
    """A method of this library, which counts calls and checks the budget itself."""

    def __init__(
        self,
        entrant: Entrant,
        model: nn.Module,
        config: Mapping[str, Any],
        budget: Budget,
        seed: int,
    ) -> None:
        cls = entrant.cls
        assert issubclass(cls, Optimizer)
        self.optimizer = cls(model, budget=budget, seed=seed, **entrant.fixed, **config)

    @property
    def calls(self) -> Calls:
        """The ledger."""
        return self.optimizer.calls

    def step(self, closure: Closure) -> Tensor | None:
        """One step."""
        return self.optimizer.step(closure)


class Foreign:
    """Any other ``torch.optim.Optimizer``, which gets a closure that calls ``backward``.

    If the optimizer calls the closure several times per step, the budget can end within a step. The
    incomplete step is then undone: a trial point of a line search is not a result.
    """

    def __init__(
        self, entrant: Entrant, model: nn.Module, config: Mapping[str, Any], budget: Budget
    ) -> None:
        settings: Any = {**entrant.fixed, **config}
        self.optimizer = entrant.cls(model.parameters(), **settings)
        self.calls = Calls()
        self._budget = budget
        self._params = [p for p in model.parameters() if p.requires_grad]
        self._bad = 0
        self._several = True

    def step(self, closure: Closure) -> Tensor | None:
        """One step, with as many gradients as the optimizer requests."""
        before = [p.detach().clone() for p in self._params] if self._several else []
        needed = one_gradient(closure)
        seen: list[Tensor] = []

        def closure_with_backward() -> Tensor:
            self._budget.check(self.calls, needed)
            began = time.perf_counter()
            with torch.enable_grad():
                self.optimizer.zero_grad()
                loss = closure()
                loss.backward()
            self.calls.seconds += time.perf_counter() - began
            self.calls.grads += needed["grads"]
            self.calls.output_grads += needed["output_grads"]
            seen.append(loss.detach())
            self._watch(seen[-1].item())
            return loss

        try:
            self.optimizer.step(closure_with_backward)  # type: ignore[arg-type]
        except BudgetExhausted:
            with torch.no_grad():
                for param, kept in zip(self._params, before, strict=False):
                    param.copy_(kept)
            raise
        self._several = len(seen) != 1
        return seen[0] if seen else None

    def _watch(self, loss: float) -> None:
        self._bad = 0 if math.isfinite(loss) else self._bad + 1
        if self._bad >= HOPELESS:
            raise Diverged(f"the loss was not finite {HOPELESS} times in a row")


def adapt(
    entrant: Entrant, model: nn.Module, config: Mapping[str, Any], budget: Budget, seed: int
) -> Native | Foreign:
    """Create the entrant's optimizer for ``model``.

    Args:
        entrant: the method.
        model: the model to train.
        config: values of the tuned hyper-parameters.
        budget: checked before every answer.
        seed: seed of its random directions, if it has this option.
    """
    if entrant.ours:
        return Native(entrant, model, config, budget, seed)
    return Foreign(entrant, model, config, budget)

"""One step of any optimizer: the same line for all, every answer counted, the budget kept."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from anyorder.compare.plan.entrants import Entrant
from anyorder.compare.run.snapshot import Snapshot
from anyorder.errors import AnyOrderError
from anyorder.optimizer import Optimizer
from anyorder.oracle.closures import Closure, one_gradient
from anyorder.oracle.ledger import Budget, BudgetExhausted, Calls

#: So many steps in a row that begin with a loss that is not finite end the run of a foreign
#: optimizer, which would never say so itself.
HOPELESS = 20
#: The state of a foreign optimizer is copied before every step when the budget allows fewer steps.
RESERVE = 32


class Diverged(AnyOrderError, RuntimeError):  # noqa: N818 - ends a run, is no fault
    """The loss has not been finite for a while."""


class Native:
    """A method of this library: it has its own oracle, ledger and budget."""

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

    #: Its steps undo themselves.
    kept_bytes = 0

    @property
    def calls(self) -> Calls:
        """The ledger."""
        return self.optimizer.calls

    def prepare(self, steps_left: float) -> None:
        """Do nothing, see :meth:`Foreign.prepare`."""

    def keep(self) -> None:
        """Do nothing, see :meth:`Foreign.keep`."""

    def step(self, closure: Closure) -> Tensor | None:
        """One step."""
        return self.optimizer.step(closure)


class Foreign:
    """Any other ``torch.optim.Optimizer``: a closure with ``backward`` is made for it.

    An optimizer that asks several times per step may meet the end of the budget in the middle of
    one. The unfinished step is then undone: a trial point of a line search is no result. Most
    optimizers ask once per step, so the state is copied before every step only once another
    number was seen, or while the budget is short; see :meth:`prepare`. If an optimizer asks
    several times for the first time and that ends the budget, the copy may be older than the
    step: that of the last :meth:`keep`.
    """

    def __init__(
        self, entrant: Entrant, model: nn.Module, config: Mapping[str, Any], budget: Budget
    ) -> None:
        settings: Any = {**entrant.fixed, **config}
        self.optimizer = entrant.cls(model.parameters(), **settings)
        self.calls = Calls()
        self._model, self._budget = model, budget
        # A budget in steps ends between two of them.
        self._undoable = bool(budget.limits().keys() - {"steps"})
        self._kept: Snapshot | None = None
        self._bad = 0
        self._once = True

    @property
    def kept_bytes(self) -> int:
        """Memory of the copy in main memory."""
        return 0 if self._kept is None else self._kept.bytes

    def prepare(self, steps_left: float) -> None:
        """Copy the state if the budget may end within the next step.

        Args:
            steps_left: how many steps like the mean one so far the budget still allows.
        """
        if not self._once or steps_left < RESERVE:
            self.keep()

    def keep(self) -> None:
        """Copy parameters, buffers and the optimizer's state, to which a step is undone."""
        if not self._undoable:
            return
        if self._kept is None:
            self._kept = Snapshot(self._model, self.optimizer)
        else:
            self._kept.update()

    def step(self, closure: Closure) -> Tensor | None:
        """One step, with as many gradients as the optimizer asks for."""
        asked = one_gradient(closure)
        self._budget.check(self.calls, asked)  # here nothing has moved yet
        seen: list[Tensor] = []

        def closure_with_backward() -> Tensor:
            self._budget.check(self.calls, asked)
            began = time.perf_counter()
            with torch.enable_grad():
                self.optimizer.zero_grad()
                loss = closure()
                loss.backward()
            self.calls.seconds += time.perf_counter() - began
            self.calls.grads += asked["grads"]
            self.calls.output_grads += asked["output_grads"]
            seen.append(loss.detach())
            if len(seen) == 1:  # those that follow may be trial points
                self._watch(seen[0].item())
            return loss

        try:
            self.optimizer.step(closure_with_backward)  # type: ignore[arg-type]
        except BudgetExhausted:
            if self._kept is not None:
                self._kept.restore()
            raise
        self._once = self._once and len(seen) <= 1
        return seen[0] if seen else None

    def _watch(self, loss: float) -> None:
        self._bad = 0 if math.isfinite(loss) else self._bad + 1
        if self._bad >= HOPELESS:
            raise Diverged(f"{HOPELESS} steps in a row began with a loss that is not finite")


def adapt(
    entrant: Entrant, model: nn.Module, config: Mapping[str, Any], budget: Budget, seed: int
) -> Native | Foreign:
    """The entrant's optimizer over ``model``, ready to step.

    Args:
        entrant: the method.
        model: what it moves.
        config: hyper-parameters that are neither fixed nor left at their defaults.
        budget: checked before every answer.
        seed: seed of its random directions, if it takes one.
    """
    if entrant.ours:
        return Native(entrant, model, config, budget, seed)
    return Foreign(entrant, model, config, budget)

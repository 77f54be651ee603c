"""A uniform ``step`` for any optimizer, with counted oracle calls and a budget."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from anyorder.compare.plan.entrants import Entrant
from anyorder.compare.run.loops import Loop, Order
from anyorder.compare.run.snapshot import Snapshot
from anyorder.errors import AnyOrderError
from anyorder.optimizer import Optimizer
from anyorder.oracle import ClosureOracle
from anyorder.oracle.closures import Closure, Ranker, one_gradient
from anyorder.oracle.ledger import Budget, BudgetExhausted, Calls

#: A foreign optimizer does not detect divergence: its run ends after this many steps in a row whose
#: first loss is not finite.
HOPELESS = 20
#: The state of a foreign optimizer is copied before each step if few steps remain: a sixteenth of
#: those taken, within these bounds. So the copies cost little, however short or long a run is.
RESERVE, SHARE = (8, 32), 16


class Diverged(AnyOrderError, RuntimeError):  # noqa: N818 - a regular end of a run
    """The loss or the metric is not finite, or the loss has grown too far."""


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
        self._model = model
        self.optimizer = cls(model, budget=budget, seed=seed, **entrant.fixed, **config)

    #: It undoes incomplete steps itself.
    kept_bytes = 0
    _order: Order | None = None

    @property
    def calls(self) -> Calls:
        """The ledger."""
        return self.optimizer.calls

    def prepare(self, steps_left: float) -> None:
        """Do nothing, see :meth:`Foreign.prepare`."""

    def keep(self) -> None:
        """Do nothing, see :meth:`Foreign.keep`."""

    def judge(self, order: Order) -> None:
        """Let ``order`` rank points by their losses in the following steps."""
        self._order = order

    def step(self, closure: Closure) -> Tensor | None:
        """One step."""
        if self._order is not None:
            self.optimizer.ranker = self._ranker(closure, self._order)
        return self.optimizer.step(closure)

    def _ranker(self, closure: Closure, order: Order) -> Ranker:
        """Rank by losses that the method does not see and that are not counted."""
        params = dict(self._model.named_parameters())
        oracle = ClosureOracle(
            closure, params, module=self._model, nonfinite="ignore", advance=True
        )  # fmt: skip
        return lambda shifts: order(oracle.values(shifts))


class Foreign:
    """Any other ``torch.optim.Optimizer``, which gets a closure that calls ``backward``.

    If the optimizer calls the closure several times per step, the budget can end within a step. The
    incomplete step is then undone: a trial point of a line search is not a result. Most optimizers
    call the closure once per step, so the state is copied before a step only if an earlier step
    did otherwise, or if few steps remain; see :meth:`prepare`. If the first step with several calls
    uses up the whole budget, it is undone to the last :meth:`keep`, which can be earlier.
    """

    def __init__(
        self, entrant: Entrant, model: nn.Module, config: Mapping[str, Any], budget: Budget
    ) -> None:
        settings: Any = {**entrant.fixed, **config}
        self.optimizer = entrant.cls(model.parameters(), **settings)
        self.calls = Calls()
        self._model, self._budget = model, budget
        # A budget in steps never ends within one.
        self._undoable = bool(budget.limits().keys() - {"steps"})
        self._kept: Snapshot | None = None
        self._bad = self._steps = 0
        self._once = True

    @property
    def kept_bytes(self) -> int:
        """Bytes of the copy in main memory."""
        return 0 if self._kept is None else self._kept.bytes

    def prepare(self, steps_left: float) -> None:
        """Copy the state if the budget can end within the next step.

        Args:
            steps_left: number of steps that the budget still allows, at the mean cost so far.
        """
        least, most = RESERVE
        if not self._once or steps_left < max(least, min(most, self._steps // SHARE)):
            self.keep()

    def keep(self) -> None:
        """Copy parameters, buffers and the optimizer's state; an incomplete step restores them."""
        if not self._undoable:
            return
        if self._kept is None:
            self._kept = Snapshot(self._model, self.optimizer)
        else:
            self._kept.update()

    def step(self, closure: Closure) -> Tensor | None:
        """One step, with as many gradients as the optimizer requests."""
        needed, timed = one_gradient(closure), self._budget.seconds is not None
        self._budget.check(self.calls, needed)  # nothing has changed yet
        seen: list[Tensor] = []

        def closure_with_backward() -> Tensor:
            if seen or timed:  # otherwise nothing was used since the check above
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
            if len(seen) == 1:  # later ones may be trial points
                self._watch(seen[0].item())
            return loss

        try:
            self.optimizer.step(closure_with_backward)  # type: ignore[arg-type]
        except BudgetExhausted:
            if self._kept is not None:
                self._kept.restore()
            raise
        self._once = self._once and len(seen) <= 1
        self._steps += 1
        return seen[0] if seen else None

    def _watch(self, loss: float) -> None:
        self._bad = 0 if math.isfinite(loss) else self._bad + 1
        if self._bad >= HOPELESS:
            raise Diverged(f"{HOPELESS} steps in a row started with a non-finite loss")


def adapt(
    entrant: Entrant, model: nn.Module, config: Mapping[str, Any], budget: Budget, seed: int
) -> Native | Foreign | Loop:
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
    if entrant.tool is not None:
        return Loop(entrant, model, config, budget, seed)
    return Foreign(entrant, model, config, budget)

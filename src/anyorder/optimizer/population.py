"""Ask-and-tell methods: ``ask`` proposes points, ``tell`` takes their order or values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import (
    _global_optimizer_post_hooks as post_hooks_of_all,  # pyright: ignore[reportPrivateUsage]
)
from torch.optim.optimizer import (
    _global_optimizer_pre_hooks as pre_hooks_of_all,  # pyright: ignore[reportPrivateUsage]
)

from anyorder.engine.tensors import all_finite
from anyorder.errors import AnyOrderError
from anyorder.optimizer.base import Optimizer
from anyorder.oracle import Oracle
from anyorder.oracle.closures import Ranked, checked_order
from anyorder.oracle.gradients import refuse, unknown_loss
from anyorder.points.directions import Shift
from anyorder.points.substitution import in_place


class AnswersError(AnyOrderError, ValueError):
    """The arguments of :meth:`Population.tell` do not fit the points of ``ask``."""


class Population(Optimizer):
    """Base class of ask-and-tell methods; ``step`` is derived from ``ask`` and ``learn``.

    ``ask`` depends only on the saved state, so an answer may come after a restart: save
    ``state_dict()``, show the points to a person, load it later and call ``tell``. A method that
    needs ``rank`` learns from orders, one that needs ``value`` from values. Values determine an
    order, so ``tell(values=...)`` works for both.
    """

    #: Whether ``tell`` has begun a step that is not complete.
    _underway = False

    @abstractmethod
    def ask(self) -> list[Shift]:
        """Return the points to evaluate as shifts from the parameters; the same until ``tell``."""

    @abstractmethod
    def learn(self, answer: Any) -> bool:
        """Update with the answer to :meth:`ask`. Returns True when a step is complete.

        Args:
            answer: positions, best first, for methods that need ``rank``, an
                :class:`~anyorder.oracle.closures.Order` where some may tie; values, float64 of
                shape ``(points,)``, for methods that need ``value``.
        """

    def tell(
        self, order: Ranked | None = None, *, values: Sequence[float] | Tensor | None = None
    ) -> bool:
        """Take an answer to :meth:`ask` from outside, and count it.

        Hooks that were registered for ``step`` run here too: before the first answer of a step, and
        after the one that completes it.

        Args:
            order: positions in :meth:`ask`'s list, best first, possibly only the best few. Those
                that tie stand in a list of their own: ``[2, [0, 3], 1]``.
            values: the loss at each point of that list.

        Returns:
            Whether that completed a step.

        Raises:
            RankingError: not distinct positions of that list; nothing was changed.
            AnswersError: not one value per point, or an order for a method that learns from
                values; nothing was changed.
            BudgetExhausted: the answer would exceed the budget; nothing was changed.
        """
        args: tuple[Any, ...] = (self, order)
        kwargs: dict[str, Any] = {"values": values}
        if not self._underway:
            for hook in (*pre_hooks_of_all.values(), *self._optimizer_step_pre_hooks.values()):
                args, kwargs = hook(self, args, kwargs) or (args, kwargs)
        complete = self._take(*args[1:], **kwargs)
        self._underway = not complete
        if complete:
            self._opt_called = True  # as schedulers note at a call of ``step``
            for hook in (*self._optimizer_step_post_hooks.values(), *post_hooks_of_all.values()):
                hook(self, args, kwargs)
        return complete

    def _take(self, order: Ranked | None, values: Sequence[float] | Tensor | None) -> bool:
        """:meth:`tell` without hooks."""
        shown = len(self.ask())
        if (order is None) == (values is None):
            raise AnswersError("expected an order or values; write tell(order) or tell(values=...)")
        answer: Any = (
            checked_order(order, shown) if order is not None else self._ranked(values, shown)
        )
        if order is not None and "rank" not in self.needs:
            raise AnswersError(
                f"{type(self).__name__} learns from values; write tell(values=[...]) with the loss "
                "at each point"
            )
        asked = {"rankings": 1, "ranked": shown} if "rank" in self.needs else {"values": shown}
        if self.budget is not None:
            self.budget.check_step(self.steps)
            self.budget.check(self.calls, asked)
        try:
            with torch.no_grad():
                self._begin()
                complete = self.learn(answer)
                if complete:
                    self._finish()
        finally:
            self._grads = None
        for name, count in asked.items():
            setattr(self.calls, name, getattr(self.calls, name) + count)
        self.steps += complete
        return complete

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Load a state; hooks take the next answer for the first of a step."""
        super().load_state_dict(state_dict)
        self._underway = False

    def candidates(self) -> list[dict[str, Tensor]]:
        """Return the points of :meth:`ask` as tensors by parameter name.

        For simulators, services and people. Needs memory for all points.
        """
        found: list[dict[str, Tensor]] = []
        for shift in self.ask():
            with self.shown(shift):
                found.append({n: p.detach().clone() for n, p in self.named_params().items()})
        return found

    def update(self, oracle: Oracle) -> Tensor:
        """Call ``ask`` and ``learn`` until a step is complete."""
        complete, loss = False, unknown_loss()
        while not complete:
            if "rank" in self.needs:
                complete = self.learn(oracle.rank(self.ask()))
            else:
                values = oracle.values(self.ask())
                loss = values.min()
                complete = self.learn(values.double())
        self._underway = False
        return loss

    def shown(self, shift: Shift) -> AbstractContextManager[None]:
        """Context in which the parameters hold the point ``shift``."""
        return in_place(self.named_params(), shift, self.engine)

    def _ranked(self, values: Any, shown: int) -> Any:
        """Check values; convert them to an order for methods that need one."""
        found = torch.as_tensor(values, dtype=torch.float64, device="cpu").reshape(-1)
        if found.numel() != shown:
            raise AnswersError(f"expected {shown} values, one for each point, got {found.numel()}")
        found = -found if self.maximize else found
        if "rank" in self.needs:
            return torch.where(found.isnan(), torch.inf, found).argsort(stable=True).tolist()
        if self.nonfinite != "ignore" and not all_finite([found]):
            refuse("raise", "a value is not finite")
        return found

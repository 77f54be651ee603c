"""Methods that propose points and are told how they fare: ``ask``, ``tell``, derived ``step``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from anyorder.optimizer import Optimizer
from anyorder.oracle import Oracle
from anyorder.oracle.closures import checked_order
from anyorder.oracle.gradients import unknown_loss
from anyorder.points.directions import Shift
from anyorder.points.substitution import in_place


class Population(Optimizer):
    """A method that proposes points and is told how they fare: ``ask``, ``tell``, derived ``step``.

    ``ask`` is a function of the saved state alone, so an answer may come after a restart: save
    ``state_dict()``, show the points to a person, load it tomorrow and ``tell``.
    """

    @abstractmethod
    def ask(self) -> list[Shift]:
        """The points to judge now, as shifts from the present parameters; the same until told."""

    @abstractmethod
    def learn(self, order: list[int]) -> bool:
        """Move by an order of :meth:`ask`'s points, best first. True when a step is complete."""

    def tell(self, answer: Sequence[int]) -> bool:
        """Take an answer to :meth:`ask` that was had elsewhere, and count it.

        Args:
            answer: positions in :meth:`ask`'s list, best first; possibly only the best few.

        Returns:
            Whether that completed a step.

        Raises:
            RankingError: not positions of that list, each at most once; nothing was changed.
            BudgetExhausted: the answer is one too many; nothing was changed.
        """
        shown = len(self.ask())
        order = checked_order(answer, shown)
        if self.budget is not None:
            self.budget.check_step(self.steps)
            self.budget.check(self.calls, {"rankings": 1, "ranked": shown})
        with torch.no_grad():
            complete = self.learn(order)
        self.calls.rankings += 1
        self.calls.ranked += shown
        self.steps += complete
        return complete

    def update(self, oracle: Oracle) -> Tensor:
        """Ask and learn until a step is complete."""
        while not self.learn(oracle.rank(self.ask())):
            pass
        return unknown_loss()

    def shown(self, shift: Shift) -> Any:
        """Context in which the parameters hold the point ``shift``, to show it to a person."""
        return in_place(self.named_params(), shift, self.engine)

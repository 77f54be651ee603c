"""An oracle for gradients that the user computed with ``backward()``."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from anyorder.oracle.gradients import unknown_loss
from anyorder.oracle.oracle import Oracle


class BackwardDone(Oracle):
    """An oracle that only knows the gradients in ``.grad``.

    With a scaler they are gradients of ``scaler.scale(loss)`` and are unscaled in place, like
    ``scaler.step`` does. With a process group they are averaged in place, like the hooks of
    DistributedDataParallel do.

    Args:
        params: see :class:`~anyorder.oracle.oracle.Oracle`.
        policies: see :class:`~anyorder.oracle.oracle.Oracle`.

    Attributes:
        owner: the optimizer, which tells a scaler whether the gradients are unscaled already.
    """

    owner: Any = None

    knows = "only the gradients that backward() has put into .grad"
    instead = "Give step a closure: optimizer.step(lambda: criterion(model(x), y))"

    def grad(self) -> tuple[Tensor, list[Tensor | None]]:
        """Return the gradients in ``.grad``; the loss is unknown (NaN)."""
        grads = self._own_grads()
        if self.budget is not None:
            self.budget.check(self.calls, {"grads": 1})
        self.calls.grads += 1
        self._settled(None, grads, owner=self.owner)
        return unknown_loss(), self._taken(self._turned(grads))

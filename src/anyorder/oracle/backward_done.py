"""Gradients that the user made by ``backward()``, in the form in which a method asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from torch import Tensor

from anyorder.oracle.gradients import refuse_sparse, unknown_loss
from anyorder.oracle.oracle import Oracle, Policies


class BackwardDone(Oracle):
    """An oracle that knows the gradients in ``.grad`` and nothing else.

    With a scaler they are those of ``scaler.scale(loss)``, and are unscaled where they are, as
    ``scaler.step`` does. With a process group they are averaged where they are, as the hooks of
    DistributedDataParallel do.

    Args:
        params: see :class:`~anyorder.oracle.oracle.Oracle`.
        owner: the optimizer by which a scaler knows what it has unscaled already.
        policies: see :class:`~anyorder.oracle.oracle.Oracle`.
    """

    knows = "only the gradients that backward() has put into .grad"
    instead = "Give step a closure: optimizer.step(lambda: criterion(model(x), y))"

    def __init__(
        self, params: Mapping[str, Tensor], *, owner: Any = None, **policies: Unpack[Policies]
    ) -> None:
        super().__init__(params, **policies)
        self._owner = owner

    def grad(self) -> tuple[Tensor, list[Tensor | None]]:
        """The gradients found in ``.grad``; the loss is not known (NaN)."""
        grads = [p.grad for p in self.params.values()]
        refuse_sparse(self.params, grads)
        if self.budget is not None:
            self.budget.check(self.calls, {"grads": 1})
        self.calls.grads += 1
        self._settled(None, grads, owner=self._owner)
        return unknown_loss(), self._taken(self._turned(grads))

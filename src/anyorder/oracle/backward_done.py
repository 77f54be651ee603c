"""Gradients that the user made by ``backward()``, in the form in which a method asks for them."""

from __future__ import annotations

from torch import Tensor

from anyorder.oracle.gradients import refuse_sparse, unknown_loss
from anyorder.oracle.oracle import Oracle


class BackwardDone(Oracle):
    """An oracle that knows the gradients in ``.grad`` and nothing else."""

    knows = "only the gradients that backward() has put into .grad"
    instead = "Give step a closure: optimizer.step(lambda: criterion(model(x), y))"

    def grad(self) -> tuple[Tensor, list[Tensor | None]]:
        """The gradients found in ``.grad``; the loss is not known (NaN)."""
        with self._asking(grads=1):
            grads = [p.grad for p in self.params.values()]
            refuse_sparse(self.params, grads)
        self._finite(None, grads)
        return unknown_loss(), self._taken(self._turned(grads))

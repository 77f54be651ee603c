"""A gradient scaler around answers that are computed in half precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from anyorder.engine.tensors import all_finite
from anyorder.oracle.gradients import SkipStep, finite_everywhere, unknown_loss


class Scaling:
    """Applies a ``torch.amp.GradScaler``; without one, does nothing.

    :meth:`up` scales a loss before differentiation. :meth:`unscale_` unscales gradients and
    :meth:`undone` curvature products. An overflow reduces the scale and skips the step, as in a
    manual loop.

    Args:
        scaler: the scaler, or ``None``.
    """

    def __init__(self, scaler: Any) -> None:
        self.scaler = scaler

    def __bool__(self) -> bool:
        """Whether there is a scaler."""
        return self.scaler is not None

    def up(self, tensor: Tensor) -> Tensor:
        """``tensor`` times the scale."""
        return tensor if self.scaler is None else self.scaler.scale(tensor)

    def factor(self) -> float:
        """Return the factor that undoes the current scale."""
        return 1.0 if self.scaler is None else 1.0 / self.scaler.get_scale()

    def unscale_(
        self, grads: Sequence[Tensor | None], loss: Tensor | None, owner: Any = None
    ) -> None:
        """Unscale gradients in place and update the scale.

        Args:
            grads: gradients of a scaled loss.
            loss: the loss, for a skipped step.
            owner: the optimizer of the gradients; if the user has already unscaled them
                (``scaler.unscale_(optimizer)``, ``scaler.step(optimizer)``), nothing is done.

        Raises:
            SkipStep: an overflow.
        """
        if self.scaler is None:
            return
        found = [grad for grad in grads if grad is not None]
        if not found:
            return
        try:
            self.scaler.unscale_(_Holder(found) if owner is None else owner)
        except RuntimeError as error:
            if owner is None or "already been called" not in str(error):
                raise
        else:
            self.scaler.update()
        if not finite_everywhere(found):
            raise SkipStep(unknown_loss() if loss is None else loss.detach())

    def undone(self, product: list[Tensor], factor: float, loss: Tensor) -> list[Tensor]:
        """Unscale a curvature product of a scaled loss.

        Raises:
            SkipStep: an overflow.
        """
        if self.scaler is None:
            return product
        if not all_finite(product):
            self.unscale_([p.clone() for p in product], loss)
        return [p * factor for p in product]


UNSCALED = Scaling(None)


class _Holder:
    """The part of an optimizer that a gradient scaler uses: parameters with gradients."""

    def __init__(self, grads: list[Tensor]) -> None:
        self.params = [grad.detach() for grad in grads]
        for param, grad in zip(self.params, grads, strict=True):
            param.grad = grad
        self.param_groups = [{"params": self.params}]

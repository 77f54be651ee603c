"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from anyorder.hyper import HyperError, hyper
from anyorder.optimizer import Optimizer
from anyorder.oracle import Oracle


class SGD(Optimizer):
    r"""Stochastic gradient descent, plain, with heavy-ball or with Nesterov momentum.

    With gradient :math:`g_t` (plus ``weight_decay`` :math:`\lambda x`) and velocity :math:`v`:

    .. math::
        v_t = \mu v_{t-1} + (1 - \tau) g_t, \qquad x_t = x_{t-1} - \eta v_t

    and with Nesterov momentum :math:`x_t = x_{t-1} - \eta (g_t + \mu v_t)`. The first velocity is
    :math:`v_1 = g_1` whatever the dampening :math:`\tau`, as in torch.optim.

    State: one buffer per parameter when ``momentum > 0``, none otherwise.

    Oracle calls per step: 1 gradient.

    Example:
        >>> import torch
        >>> from anyorder.methods.sgd import SGD
        >>> x = torch.nn.Parameter(torch.tensor([3.0]))
        >>> optimizer = SGD([x], lr=0.25)
        >>> optimizer.step(lambda: (x ** 2).sum()).item(), x.item()
        (9.0, 1.5)

    References:
        Robbins and Monro (1951); Polyak (1964); Nesterov (1983); Sutskever et al. (2013).
    """

    order = 1
    needs = frozenset({"grad"})
    buffers = ("momentum_buffer",)

    lr: float = hyper(
        1e-3, ge=0, search="log", low=1e-3, high=1.0, unit="parameter / gradient", doc="step size"
    )
    momentum: float = hyper(
        0.0, ge=0, lt=1, search="linear", low=0.0, high=0.95, doc="share of the velocity kept"
    )
    dampening: float = hyper(0.0, ge=0, le=1, doc="share of the gradient kept out of the velocity")
    weight_decay: float = hyper(0.0, ge=0, unit="gradient / parameter", doc="decay, L2 by default")
    decoupled_weight_decay: bool = hyper(
        False, doc="decay the weights themselves; else add the decay to the gradient (L2)"
    )
    nesterov: bool = hyper(False, doc="look ahead along the velocity")

    def check_group(self, group: dict[str, Any]) -> None:
        """Nesterov momentum needs momentum and no dampening."""
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise HyperError("nesterov: expected momentum > 0 and dampening = 0 beside it")

    def buffers_of(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Plain descent keeps nothing."""
        return self.buffers if group["momentum"] else ()

    def scalars(self, group: dict[str, Any], step: int) -> dict[str, float]:
        """See the class for the symbols."""
        return {
            "lr": float(group["lr"]),
            "momentum": float(group["momentum"]),
            "take": 1.0 if step == 1 else 1.0 - group["dampening"],
            "ahead": float(group["nesterov"]),
        }

    def update(self, oracle: Oracle) -> Tensor:
        """One gradient, one move."""
        loss, grads = oracle.grad()
        self.follow_buffers()
        self.apply(descend_, grads, where=lambda group: not group["momentum"])
        self.apply(descend_with_momentum_, grads, where=lambda group: bool(group["momentum"]))
        return loss


def descend_(param: Tensor, grad: Tensor, *, lr: Tensor) -> None:
    """``x <- x - lr g``."""
    param.sub_(grad * lr)


def descend_with_momentum_(
    param: Tensor,
    velocity: Tensor,
    grad: Tensor,
    *,
    lr: Tensor,
    momentum: Tensor,
    take: Tensor,
    ahead: Tensor,
) -> None:
    """``v <- mu v + take g``; ``x <- x - lr v``, or ``x - lr (g + mu v)`` when ``ahead`` is 1."""
    velocity.mul_(momentum).add_(grad * take)
    param.sub_(((velocity * momentum + grad) * ahead + velocity * (1.0 - ahead)) * lr)

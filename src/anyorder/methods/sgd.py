"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from anyorder.hyper import HyperError, hyper
from anyorder.optimizer import Optimizer
from anyorder.rules import Rule
from anyorder.rules.descent import DESCENT, HEAVY_BALL


class SGD(Optimizer):
    r"""Stochastic gradient descent, optionally with heavy-ball or Nesterov momentum.

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
    rules: ClassVar[Mapping[str, tuple[Rule, ...]]] = {
        "plain": (DESCENT,),
        "momentum": (HEAVY_BALL,),
    }

    lr: float = HEAVY_BALL.hypers["lr"]
    momentum: float = HEAVY_BALL.hypers["momentum"]
    dampening: float = HEAVY_BALL.hypers["dampening"]
    weight_decay: float = HEAVY_BALL.hypers["weight_decay"]
    decoupled_weight_decay: bool = hyper(
        False, doc="decoupled weight decay instead of L2 (added to the gradient)"
    )
    nesterov: bool = HEAVY_BALL.hypers["nesterov"]

    def check_group(self, group: dict[str, Any]) -> None:
        """Nesterov momentum needs momentum and no dampening."""
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise HyperError("nesterov: expected momentum > 0 and dampening = 0 beside it")

    def label(self, name: str, group: Mapping[str, Any]) -> str:
        """Plain descent has no state."""
        return "momentum" if group["momentum"] else "plain"

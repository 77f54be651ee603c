"""Descent along a direction, with or without momentum, and averages of gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from anyorder.hyper import hyper
from anyorder.rules.rule import Rule


def lr_of(group: Mapping[str, Any], step: int) -> dict[str, float]:
    """Only the learning rate."""
    return {"lr": float(group["lr"])}


def descend_(param: Tensor, direction: Tensor, *, lr: Tensor) -> None:
    """``x <- x - lr d``."""
    param.sub_(direction * lr)


def sign_descend_(param: Tensor, grad: Tensor, *, lr: Tensor) -> None:
    """``x <- x - lr sign(g)``."""
    param.sub_(grad.sign() * lr)


def heavy_ball_(
    param: Tensor,
    velocity: Tensor,
    grad: Tensor,
    *,
    lr: Tensor,
    momentum: Tensor,
    take: Tensor,
    ahead: Tensor,
    behind: Tensor,
) -> None:
    """``v <- mu v + take g``; ``x <- x - lr v``, or ``x - lr (g + mu v)`` when ``ahead`` is 1."""
    velocity.mul_(momentum).add_(grad * take)
    param.sub_(((velocity * momentum + grad) * ahead + velocity * behind) * lr)


def average_(param: Tensor, average: Tensor, grad: Tensor, *, keep: Tensor, take: Tensor) -> None:
    """``m <- keep m + take g``."""
    average.mul_(keep).add_(grad * take)


def _heavy_ball_scalars(group: Mapping[str, Any], step: int) -> dict[str, float]:
    return {
        "lr": float(group["lr"]),
        "momentum": float(group["momentum"]),
        "take": 1.0 if step == 1 else 1.0 - group["dampening"],
        "ahead": float(group["nesterov"]),
        "behind": float(not group["nesterov"]),
    }


def _average_scalars(group: Mapping[str, Any], step: int) -> dict[str, float]:
    return {"keep": group["momentum"], "take": 1.0 - group["momentum"]}


_LR = hyper(
    1e-3, ge=0, search="log", low=1e-4, high=1.0, unit="parameter / gradient", doc="learning rate"
)
_DECAY = hyper(0.0, ge=0, unit="gradient / parameter", doc="weight decay, L2 by default")

#: Gradient descent; also an update along any direction.
DESCENT = Rule(descend_, scalars=lr_of, hypers={"lr": _LR, "weight_decay": _DECAY})
#: Descent along the signs of the gradient.
SIGNS = Rule(sign_descend_, scalars=lr_of, hypers={"lr": _LR, "weight_decay": _DECAY})
#: An update along a direction that is not a gradient.
MOVE = Rule(descend_, scalars=lr_of, gradient=False)
#: Descent with heavy-ball or Nesterov momentum.
HEAVY_BALL = Rule(
    heavy_ball_,
    buffers=("momentum_buffer",),
    scalars=_heavy_ball_scalars,
    hypers={
        "lr": _LR,
        "momentum": hyper(
            0.0, ge=0, lt=1, search="linear", low=0.0, high=0.95, doc="momentum factor"
        ),
        "dampening": hyper(0.0, ge=0, le=1, doc="dampening of the momentum"),
        "weight_decay": _DECAY,
        "nesterov": hyper(False, doc="use Nesterov momentum"),
    },
)
#: The running average of gradients, for methods that compute a direction from it.
AVERAGE = Rule(average_, buffers=("momentum_buffer",), scalars=_average_scalars, ends_step=False)
#: A move between steps, by a length given with it: nothing is done around it, no step is counted.
SHIFT = Rule(descend_, gradient=False, ends_step=False)

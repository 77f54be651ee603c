r"""Updates of the Lion family, the effect of weight decay, and the Lyapunov function.

With momentum :math:`m`, gradient :math:`g` and a map :math:`\nabla \kappa`:

.. math::
    c = \beta_1 m + (1 - \beta_1) g, \qquad x \leftarrow x - \eta \nabla \kappa(c), \qquad
    m \leftarrow \beta_2 m + (1 - \beta_2) g

Weight decay is applied before, by the optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from anyorder.engine.program import Arithmetic
from anyorder.hyper import HyperError
from anyorder.rules.kappa import clipped, loud
from anyorder.rules.rule import Rule


def mixed(exp_avg: Tensor, grad: Tensor, beta1: Tensor | float, take1: Tensor | float) -> Tensor:
    """``b1 m + take1 g``: gives the current gradient more weight than the stored momentum does."""
    return (exp_avg * beta1).add_(grad * take1)


def _scalars(group: Mapping[str, Any], step: int) -> dict[str, float]:
    """The scalars of all rules in this file."""
    beta1, beta2 = group["betas"]
    threshold = float(group.get("threshold", 0.0))
    return {
        "lr": float(group["lr"]),
        "beta1": beta1,
        "beta2": beta2,
        "take1": 1.0 - beta1,
        "take2": 1.0 - beta2,
        "threshold": threshold,
        "slope": 1.0 / threshold if threshold > 0 else math.inf,
    }


def sign_(
    param: Tensor,
    exp_avg: Tensor,
    grad: Tensor,
    *,
    lr: Tensor,
    beta1: Tensor,
    beta2: Tensor,
    take1: Tensor,
    take2: Tensor,
) -> None:
    """``x <- x - lr sign(b1 m + take1 g)``; ``m <- b2 m + take2 g``."""
    param.sub_(mixed(exp_avg, grad, beta1, take1).sign_().mul_(lr))
    remember_(exp_avg, grad, beta2, take2)


def plain_(
    param: Tensor,
    exp_avg: Tensor,
    grad: Tensor,
    *,
    lr: Tensor,
    beta1: Tensor,
    beta2: Tensor,
    take1: Tensor,
    take2: Tensor,
) -> None:
    """``x <- x - lr (b1 m + take1 g)``; ``m <- b2 m + take2 g``."""
    param.sub_(mixed(exp_avg, grad, beta1, take1).mul_(lr))
    remember_(exp_avg, grad, beta2, take2)


def clip_(
    param: Tensor,
    exp_avg: Tensor,
    grad: Tensor,
    *,
    lr: Tensor,
    beta1: Tensor,
    beta2: Tensor,
    take1: Tensor,
    take2: Tensor,
    slope: Tensor,
) -> None:
    """Like :func:`sign_`, with ``slope * c`` clipped to [-1, 1] instead of signs."""
    param.sub_(clipped(mixed(exp_avg, grad, beta1, take1), slope).mul_(lr))
    remember_(exp_avg, grad, beta2, take2)


def loud_(
    param: Tensor,
    exp_avg: Tensor,
    grad: Tensor,
    *,
    lr: Tensor,
    beta1: Tensor,
    beta2: Tensor,
    take1: Tensor,
    take2: Tensor,
    threshold: Tensor,
) -> None:
    """Like :func:`sign_`, but elements of ``c`` within the threshold give no update."""
    param.sub_(loud(mixed(exp_avg, grad, beta1, take1), threshold).mul_(lr))
    remember_(exp_avg, grad, beta2, take2)


def along_(
    param: Tensor,
    exp_avg: Tensor,
    grad: Tensor,
    direction: Tensor,
    *,
    lr: Tensor,
    beta2: Tensor,
    take2: Tensor,
) -> None:
    """``x <- x - lr direction``; ``m <- b2 m + take2 g``: for maps of the whole tensor."""
    param.sub_(direction * lr)
    remember_(exp_avg, grad, beta2, take2)


def remember_(exp_avg: Tensor, grad: Tensor, beta2: Tensor, take2: Tensor) -> None:
    """``m <- b2 m + take2 g``."""
    exp_avg.mul_(beta2).add_(grad * take2)


def _rule(function: Arithmetic) -> Rule:
    return Rule(function, buffers=("exp_avg",), scalars=_scalars)


SIGN, PLAIN, CLIP, LOUD, ALONG = map(_rule, (sign_, plain_, clip_, loud_, along_))


# What decay does ----------------------------------------------------------------------------------


class Bound(NamedTuple):
    """The norm of a parameter and the bound from its weight decay.

    Attributes:
        norm: name of the norm.
        size: the current norm of the parameter.
        radius: the bound; infinite without weight decay.
    """

    norm: str
    size: float
    radius: float


def decoupled(group: Mapping[str, Any]) -> float:
    """Return the decoupled weight decay of a group; 0 if it is coupled."""
    return float(group["weight_decay"]) if group["decoupled_weight_decay"] else 0.0


def radius(group: Mapping[str, Any]) -> float:
    """Return ``1 / weight_decay``, the bound on the weights of a group.

    Infinite without decoupled weight decay, and with cautious updates, which are scaled up.
    """
    decay = 0.0 if group.get("cautious") else decoupled(group)
    return 1.0 / decay if decay > 0 else math.inf


def radius_note(group: Mapping[str, Any], ball: str) -> str:
    """Describe the radius; empty if there is none."""
    found = radius(group)
    return f"decay draws it into {ball} <= {found:.4g}" if math.isfinite(found) else ""


def momentum_weight(group: Mapping[str, Any]) -> float:
    r"""The factor :math:`c` of the Lyapunov function of :class:`~anyorder.methods.lion_k.LionK`.

    .. math::
        c = \frac{\eta' \beta_1}{\eta' \lambda (1 - \beta_1) + 1 - \beta_2}, \qquad
        \eta' = \frac{\eta}{1 - \eta \lambda}

    :math:`\eta'` is the step size of the same step written with the decay at its end,
    :math:`x_{t+1} = x_t + \eta' (u - \lambda x_{t+1})`.

    Raises:
        HyperError: ``lr * weight_decay`` is 1 or more.
    """
    lr, decay = float(group["lr"]), decoupled(group)
    beta1, beta2 = group["betas"]
    if lr * decay >= 1.0:
        raise HyperError(
            f"weight_decay: expected lr * weight_decay below 1, got {lr:g} * {decay:g}; such a "
            "step forgets where it came from, and no Lyapunov function describes it"
        )
    lr /= 1.0 - lr * decay
    return lr * beta1 / (lr * decay * (1.0 - beta1) + 1.0 - beta2)

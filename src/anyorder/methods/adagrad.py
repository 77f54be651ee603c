"""AdaGrad: divides each coordinate by the root of the sum of its squared gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from anyorder.engine.tensors import sqrt
from anyorder.hyper import hyper
from anyorder.optimizer import Optimizer
from anyorder.rules import Rule


def adagrad_(
    param: Tensor, total: Tensor, grad: Tensor, *, step_size: Tensor, start: Tensor, eps: Tensor
) -> None:
    """``s <- s + start + g^2``; ``x <- x - step_size g / (sqrt(s) + eps)``."""
    total.add_(start).add_(grad * grad)
    param.sub_((grad / sqrt(total).add_(eps)).mul_(step_size))


def _scalars(group: Mapping[str, Any], step: int) -> dict[str, float]:
    """The step size, and the initial value of the sum in the first step."""
    return {
        "step_size": float(group["lr"]) / (1.0 + (step - 1) * group["lr_decay"]),
        "start": float(group["initial"]) if step == 1 else 0.0,
        "eps": float(group["eps"]),
    }


ADAGRAD = Rule(adagrad_, buffers=("sum",), nonnegative=frozenset(("sum",)), scalars=_scalars)


class AdaGrad(Optimizer):
    r"""AdaGrad: the step size of a coordinate decreases with the sum of its squared gradients.

    .. math::
        s_t &= s_{t-1} + g_t^2, \qquad s_0 = \text{initial} \\
        x_t &= x_{t-1} - \frac{\eta}{1 + (t - 1) \, \text{decay}} \frac{g_t}{\sqrt{s_t} + \epsilon}

    Rarely updated coordinates keep large steps, so sparse features do not need their own learning
    rate. The learning rate needs no schedule, and no scaling when the batch size grows, because the
    sum adapts to the lower noise (see :class:`anyorder.batching.BatchSizeController`). The sum
    never decreases, so large gradients at the start shorten all later steps.

    State: one buffer per parameter. In ``8bit`` the sum stops growing once a square is below its
    rounding (a few per cent), so that later steps are too long; prefer ``fp32`` or ``bf16``, which
    rounds stochastically. Oracle calls per step: 1 gradient. Each step transfers 20 bytes per
    float32 parameter.

    Example:
        >>> import torch
        >>> from anyorder.methods.adagrad import AdaGrad
        >>> x = torch.nn.Parameter(torch.tensor([3.0, -100.0]))
        >>> optimizer = AdaGrad([x], lr=0.5)
        >>> loss = optimizer.step(lambda: (x ** 2).sum())
        >>> x.tolist()  # the first step has the size of lr everywhere
        [2.5, -99.5]

    References:
        Duchi, Hazan and Singer (2011), "Adaptive Subgradient Methods for Online Learning and
        Stochastic Optimization", JMLR 12.
    """

    order = 1
    rule = ADAGRAD

    lr: float = hyper(
        1e-2, ge=0, search="log", low=1e-4, high=1.0, unit="parameter", doc="learning rate"
    )
    lr_decay: float = hyper(0.0, ge=0, unit="1 / step", doc="decay of the learning rate over steps")
    initial: float = hyper(0.0, ge=0, unit="gradient^2", doc="initial value of the sum")
    eps: float = hyper(1e-10, gt=0, unit="gradient", doc="added to the denominator")
    weight_decay: float = hyper(
        0.0, ge=0, unit="gradient / parameter", doc="weight decay, L2 by default"
    )
    decoupled_weight_decay: bool = hyper(
        False, doc="decoupled weight decay instead of L2 (added to the gradient)"
    )

"""EXAdam: Adam with bias corrections from both moments, which uses the gradient twice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from anyorder.engine.tensors import sqrt
from anyorder.hyper import hyper
from anyorder.optimizer import Optimizer
from anyorder.rules import Rule


def exadam_(
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    grad: Tensor,
    *,
    beta2: Tensor,
    take1: Tensor,
    take2: Tensor,
    fade1: Tensor,
    fade2: Tensor,
    step_size: Tensor,
    square: Tensor,
    boost: Tensor,
    eps: Tensor,
) -> None:
    """Update both moments and compute their corrections, then update the parameter."""
    exp_avg.add_((grad - exp_avg).mul_(take1))
    exp_avg_sq.mul_(beta2).add_((grad * grad).mul_(take2))
    # Both ratios lie in [0, 1): 0 far below eps, 1 far above.
    correction1 = (exp_avg_sq / (exp_avg_sq + eps)).mul_(fade2).add_(1.0)
    squared = exp_avg * exp_avg
    correction2 = squared.div_(squared + eps).mul_(fade1).add_(1.0)
    denominator = sqrt(correction2.mul_(exp_avg_sq).mul_(square)).add_(eps)
    param.sub_((grad * boost).add_(exp_avg).mul_(correction1).mul_(step_size).div_(denominator))


def _scalars(group: Mapping[str, Any], step: int) -> dict[str, float]:
    """See the class for the symbols."""
    beta1, beta2 = group["betas"]
    growth = 0.5 * math.log(2.0 * (step + 1)) if group["version"] == 1 else 1.0
    return {
        "beta2": beta2,
        "take1": 1.0 - beta1,
        "take2": 1.0 - beta2,
        "fade1": beta1**step,
        "fade2": beta2**step,
        "step_size": float(group["lr"]) * growth / (1.0 - beta1**step),
        "square": 1.0 / (1.0 - beta2**step),
        "boost": group["boost"],
        "eps": group["eps"],
    }


EXADAM = Rule(
    exadam_,
    buffers=("exp_avg", "exp_avg_sq"),
    nonnegative=frozenset({"exp_avg_sq"}),
    scalars=_scalars,
)


class EXAdam(Optimizer):
    r"""Adam with cross-moment bias corrections that adds the current gradient to the mean.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        d_1 &= 1 + \beta_2^t \frac{v_t}{v_t + \epsilon}, \qquad
        d_2 = 1 + \beta_1^t \frac{m_t^2}{m_t^2 + \epsilon} \\
        x_t &= x_{t-1} - \eta_t
               \frac{d_1 (m_t + b\, g_t) / (1 - \beta_1^t)}
                    {\sqrt{d_2 v_t / (1 - \beta_2^t)} + \epsilon}

    with :math:`b = 1` (``boost``). Two methods have this name. In version 1 of the paper the step
    size grows without bound, :math:`\eta_t = \eta \ln(\sqrt 2 \sqrt{t + 1})`: 0.69 at first, 3.8
    after a thousand steps, 7.3 after a million. In version 2 it is constant, :math:`\eta_t = \eta`.
    The default is 2: the current paper, and the authors' program since April 2025. The growth of
    version 1 is a schedule that could be used with any method, so an improvement from it says
    little about the moments.

    Only compare it with Adam after tuning both: in a steady state :math:`m_t + g_t` is twice Adam's
    mean, and :math:`d_1` doubles the step again over the first :math:`1 / (1 - \beta_2)`
    steps. The corrections compare :math:`v_t` and :math:`m_t^2` with :math:`\epsilon`, so
    unlike Adam the method depends on the scale of the loss: with gradients far below
    :math:`\sqrt\epsilon` both corrections are switched off.

    State: two buffers per parameter. Oracle calls per step: 1 gradient. Each step transfers 28
    bytes per float32 parameter, like Adam.

    Example:
        >>> import torch
        >>> from anyorder.methods.exadam import EXAdam
        >>> x = torch.nn.Parameter(torch.tensor([3.0]))
        >>> optimizer = EXAdam([x], lr=0.1)
        >>> loss = optimizer.step(lambda: (x ** 2).sum())
        >>> round(x.item(), 3)  # 0.1 * 1.999 * (1 + 10) / sqrt(1.9): far more than lr
        1.405

    Departures from the paper:
        ``boost`` (1 in the paper) allows measuring the effect of the added gradient. Algorithm 1
        has no weight decay; as in the authors' program it is decoupled, is applied before the
        update and scales with ``lr``, not with the growing step size of version 1.

    References:
        Adly (2024), "EXAdam: The Power of Adaptive Cross-Moments", arXiv 2412.20302; the authors'
        program, github.com/AhmedMostafa16/EXAdam.
    """

    order = 1
    rule = EXADAM

    lr: float = hyper(
        1e-3, ge=0, search="log", low=1e-5, high=1e-1, unit="parameter", doc="learning rate"
    )
    betas: tuple[float, float] = hyper((0.9, 0.999), ge=0, lt=1, doc="decay rates of the moments")
    eps: float = hyper(1e-8, gt=0, doc="added to the denominator; scale of the corrections")
    boost: float = hyper(1.0, ge=0, doc="weight of the current gradient")
    version: int = hyper(2, choices=(1, 2), doc="version of the paper; in 1 the step size grows")
    weight_decay: float = hyper(
        0.0, ge=0, search="log", low=1e-4, high=1.0, unit="1 / step size", doc="weight decay"
    )

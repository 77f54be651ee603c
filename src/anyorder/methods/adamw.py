"""Adam with decoupled weight decay."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from anyorder.engine.tensors import sqrt
from anyorder.hyper import hyper
from anyorder.optimizer import Optimizer
from anyorder.oracle import Oracle


class AdamW(Optimizer):
    r"""Adam with decoupled weight decay, the baseline everybody has.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        x_t &= (1 - \eta \lambda) x_{t-1}
               - \eta \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    State: two buffers per parameter. Oracle calls per step: 1 gradient. Each step moves 28 bytes
    per float32 parameter, the floor for this state.

    Example:
        >>> import torch
        >>> from anyorder.methods.adamw import AdamW
        >>> x = torch.nn.Parameter(torch.tensor([3.0]))
        >>> optimizer = AdamW([x], lr=0.5, weight_decay=0.0)
        >>> loss = optimizer.step(lambda: (x ** 2).sum())
        >>> round(x.item(), 4)  # the first step has the size of lr
        2.5

    References:
        Kingma and Ba (2015), arXiv 1412.6980; Loshchilov and Hutter (2019), arXiv 1711.05101.
    """

    order = 1
    needs = frozenset({"grad"})
    buffers = ("exp_avg", "exp_avg_sq")
    nonnegative = frozenset({"exp_avg_sq"})

    lr: float = hyper(
        1e-3, ge=0, search="log", low=1e-5, high=1e-1, unit="parameter", doc="step size"
    )
    betas: tuple[float, float] = hyper((0.9, 0.999), ge=0, lt=1, doc="memory of mean and square")
    eps: float = hyper(1e-8, ge=0, unit="gradient", doc="added to the denominator")
    weight_decay: float = hyper(
        1e-2, ge=0, search="log", low=1e-4, high=1.0, unit="1 / step size", doc="decoupled decay"
    )

    def scalars(self, group: dict[str, Any], step: int) -> dict[str, float]:
        """See the class for the symbols; all corrections are made here, once per step."""
        return numbers(float(group["lr"]), group["betas"], group["eps"], step)

    def update(self, oracle: Oracle) -> Tensor:
        """One gradient, one move."""
        loss, grads = oracle.grad()
        self.apply(adamw_, grads)
        return loss


def numbers(lr: float, betas: tuple[float, float], eps: float, step: int) -> dict[str, float]:
    """The scalars of :func:`adamw_` in step ``step`` (from 1)."""
    beta1, beta2 = betas
    return {
        "beta2": beta2,
        "take1": 1.0 - beta1,
        "take2": 1.0 - beta2,
        "step_size": lr / (1.0 - beta1**step),
        "root": 1.0 / math.sqrt(1.0 - beta2**step),
        "eps": eps,
    }


def adamw_(
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    grad: Tensor,
    *,
    beta2: Tensor,
    take1: Tensor,
    take2: Tensor,
    step_size: Tensor,
    root: Tensor,
    eps: Tensor,
) -> None:
    """Mean, mean square and move."""
    exp_avg.add_((grad - exp_avg).mul_(take1))
    exp_avg_sq.mul_(beta2).add_((grad * grad).mul_(take2))
    denominator = sqrt(exp_avg_sq).mul_(root).add_(eps)
    param.sub_((exp_avg / denominator).mul_(step_size))

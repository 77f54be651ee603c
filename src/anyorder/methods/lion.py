"""Lion: signs of an interpolated momentum."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from anyorder.hyper import hyper
from anyorder.optimizer import Optimizer
from anyorder.oracle import Oracle


class Lion(Optimizer):
    r"""Lion: every coordinate moves by the same amount, in the direction of a mixed momentum.

    .. math::
        c_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        x_t &= x_{t-1} - \eta (\operatorname{sign}(c_t) + \lambda x_{t-1}) \\
        m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

    The first interpolation looks more at the present than the memory does. Use a step size 3 to 10
    times below AdamW's and a weight decay as many times above. The update never shrinks by itself,
    so decay the step size. With batches of 64 or fewer expect to lose to AdamW (the paper says so).

    State: one buffer per parameter, half of Adam's. Oracle calls per step: 1 gradient. Each step
    moves 20 bytes per float32 parameter.

    Example:
        >>> import torch
        >>> from anyorder.methods.lion import Lion
        >>> x = torch.nn.Parameter(torch.tensor([3.0, -1.0]))
        >>> optimizer = Lion([x], lr=0.5)
        >>> loss = optimizer.step(lambda: (x ** 2).sum())
        >>> x.tolist()
        [2.5, -0.5]

    References:
        Chen et al. (2023), "Symbolic Discovery of Optimization Algorithms", arXiv 2302.06675.
    """

    order = 1
    needs = frozenset({"grad"})
    buffers = ("exp_avg",)

    lr: float = hyper(
        1e-4, ge=0, search="log", low=1e-5, high=1e-2, unit="parameter", doc="step size"
    )
    betas: tuple[float, float] = hyper((0.9, 0.99), ge=0, lt=1, doc="memory seen, memory kept")
    weight_decay: float = hyper(
        0.0, ge=0, search="log", low=1e-3, high=10.0, unit="1 / step size", doc="decoupled decay"
    )

    def scalars(self, group: dict[str, Any], step: int) -> dict[str, float]:
        """See the class for the symbols."""
        beta1, beta2 = group["betas"]
        return {
            "lr": float(group["lr"]),
            "beta1": beta1,
            "beta2": beta2,
            "take1": 1.0 - beta1,
            "take2": 1.0 - beta2,
        }

    def update(self, oracle: Oracle) -> Tensor:
        """One gradient, one move."""
        loss, grads = oracle.grad()
        self.apply(lion_, grads)
        return loss


def lion_(
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
    mixed = (exp_avg * beta1).add_(grad * take1)
    param.sub_(mixed.sign_().mul_(lr))
    exp_avg.mul_(beta2).add_(grad * take2)

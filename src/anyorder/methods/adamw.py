"""Adam with decoupled weight decay."""

from __future__ import annotations

from anyorder.optimizer import Optimizer
from anyorder.rules.adamw import ADAMW


class AdamW(Optimizer):
    r"""Adam with decoupled weight decay, the standard baseline.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        x_t &= (1 - \eta \lambda) x_{t-1}
               - \eta \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    State: two buffers per parameter. Oracle calls per step: 1 gradient. Each step transfers 28
    bytes per float32 parameter, the minimum for this state.

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
    rule = ADAMW

    lr: float = ADAMW.hypers["lr"]
    betas: tuple[float, float] = ADAMW.hypers["betas"]
    eps: float = ADAMW.hypers["eps"]
    weight_decay: float = ADAMW.hypers["weight_decay"]

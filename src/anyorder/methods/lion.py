"""Lion: signs of an interpolated momentum."""

from __future__ import annotations

from torch import Tensor

from anyorder.hyper import hyper
from anyorder.optimizer import Optimizer
from anyorder.rules.lion import SIGN, radius_note


class Lion(Optimizer):
    r"""Lion: sign updates from an interpolation of momentum and gradient.

    .. math::
        c_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        x_t &= x_{t-1} - \eta (\operatorname{sign}(c_t) + \lambda x_{t-1}) \\
        m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

    The interpolation for the update gives the current gradient more weight than the momentum does.
    Use a learning rate 3 to 10 times lower than AdamW's and a weight decay higher by the same
    factor. The size of updates never decreases by itself, so use a learning rate schedule. With
    batch sizes of 64 or less AdamW is usually better (as the paper says). Weight decay is a box
    constraint: it keeps every weight within :math:`1 / \lambda` of zero, which ``explain()`` shows;
    :class:`~anyorder.methods.lion_k.LionK` gives the reason and supports other constraints.

    State: one buffer per parameter, half of Adam's. Oracle calls per step: 1 gradient. Each step
    transfers 20 bytes per float32 parameter.

    Example:
        >>> import torch
        >>> from anyorder.methods.lion import Lion
        >>> x = torch.nn.Parameter(torch.tensor([3.0, -1.0]))
        >>> optimizer = Lion([x], lr=0.5)
        >>> loss = optimizer.step(lambda: (x ** 2).sum())
        >>> x.tolist()
        [2.5, -0.5]

    References:
        Chen et al. (2023), "Symbolic Discovery of Optimization Algorithms", arXiv 2302.06675;
        Chen, Liu, Liang and Liu (2023), arXiv 2310.05898, for the box.
    """

    order = 1
    rule = SIGN

    lr: float = hyper(
        1e-4, ge=0, search="log", low=1e-6, high=1e-2, unit="parameter", doc="learning rate"
    )
    betas: tuple[float, float] = hyper(
        (0.9, 0.99), ge=0, lt=1, doc="momentum weights in the update and in the state"
    )
    weight_decay: float = hyper(
        0.0, ge=0, search="log", low=1e-3, high=10.0, unit="1 / step size", doc="weight decay"
    )

    def note(self, name: str, param: Tensor) -> str:
        """Describe the box constraint from weight decay."""
        group = next(g for g in self.param_groups if name in g["param_names"])
        return radius_note(group, "max |x|")

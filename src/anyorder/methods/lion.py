"""Lion: signs of an interpolated momentum."""

from __future__ import annotations

from torch import Tensor

from anyorder.hyper import hyper
from anyorder.optimizer import Optimizer
from anyorder.rules.lion import SIGN, radius_note


class Lion(Optimizer):
    r"""Lion: every coordinate moves by the same amount, in the direction of a mixed momentum.

    .. math::
        c_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        x_t &= x_{t-1} - \eta (\operatorname{sign}(c_t) + \lambda x_{t-1}) \\
        m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

    The first interpolation looks more at the present than the memory does. Use a step size 3 to 10
    times below AdamW's and a weight decay as many times above. The update never shrinks by itself,
    so decay the step size. With batches of 64 or fewer expect to lose to AdamW (the paper says so).
    Weight decay is a box: it keeps every weight within :math:`1 / \lambda` of zero, which
    ``explain()`` names; :class:`~anyorder.methods.lion_k.LionK` says why, and has other shapes.

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
        Chen et al. (2023), "Symbolic Discovery of Optimization Algorithms", arXiv 2302.06675;
        Chen, Liu, Liang and Liu (2023), arXiv 2310.05898, for the box.
    """

    order = 1
    rule = SIGN

    lr: float = hyper(
        1e-4, ge=0, search="log", low=1e-5, high=1e-2, unit="parameter", doc="step size"
    )
    betas: tuple[float, float] = hyper((0.9, 0.99), ge=0, lt=1, doc="memory seen, memory kept")
    weight_decay: float = hyper(
        0.0, ge=0, search="log", low=1e-3, high=10.0, unit="1 / step size", doc="decoupled decay"
    )

    def note(self, name: str, param: Tensor) -> str:
        """The box that the decay of the parameter keeps to."""
        group = next(g for g in self.param_groups if name in g["param_names"])
        return radius_note(group, "max |x|")

"""AdaGrad-Norm: divides the step size by the root of the sum of squared gradient norms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from anyorder.hyper import hyper
from anyorder.model.sharding import full
from anyorder.optimizer import Optimizer
from anyorder.optimizer.options import same_in_all_groups
from anyorder.optimizer.record import number
from anyorder.oracle import Oracle
from anyorder.rules.descent import DESCENT


class AdaGradNorm(Optimizer):
    r"""AdaGrad-Norm: AdaGrad with a single number as its state.

    .. math::
        b_t^2 = b_{t-1}^2 + |g_t|^2, \qquad x_t = x_{t-1} - \frac{\eta}{b_t + \epsilon} g_t

    The norm is over all parameters of all groups. The direction is the gradient, so unlike AdaGrad
    the method does not adapt to different scales of coordinates, but to the unknown smoothness and
    noise. The first step has the total length ``lr`` (with ``initial = 0``).

    State: one number in total, none per parameter. Oracle calls per step: 1 gradient. Each step
    transfers 16 bytes per float32 parameter: the norm is a second pass over the gradient.

    Example:
        >>> import torch
        >>> from anyorder.methods.adagrad_norm import AdaGradNorm
        >>> x = torch.nn.Parameter(torch.tensor([3.0, -4.0]))
        >>> optimizer = AdaGradNorm([x], lr=2.5)
        >>> loss = optimizer.step(lambda: (x ** 2).sum() / 2)
        >>> [round(v, 4) for v in x.tolist()]
        [1.5, -2.0]

    References:
        Ward, Wu and Bottou (2020), "AdaGrad stepsizes: sharp convergence over nonconvex
        landscapes", arXiv 1806.01811.
    """

    order = 1
    rule = DESCENT

    lr: float = hyper(
        1.0, ge=0, search="log", low=1e-2, high=1e2, unit="parameter", doc="learning rate"
    )
    initial: float = hyper(0.0, ge=0, unit="gradient", doc="initial value of b")
    eps: float = hyper(1e-10, ge=0, unit="gradient", doc="added to the denominator")
    weight_decay: float = hyper(0.0, ge=0, unit="1 / step size", doc="weight decay")
    decoupled_weight_decay: bool = hyper(
        True, choices=(True,), doc="always decoupled; the norm does not contain weight decay"
    )

    def __init__(self, params: Any, **options: Any) -> None:
        self.squares = 0.0
        super().__init__(params, **options)

    def check_group(self, group: dict[str, Any]) -> None:
        """Check that the initial sum is equal in all groups."""
        same_in_all_groups(["initial"], group, self.param_groups, "there is one sum for all groups")

    def extra_state(self) -> dict[str, Any]:
        """The sum of squared gradient norms."""
        return {"squares": self.squares}

    def load_extra_state(self, extra: Mapping[str, Any]) -> None:
        """Load the sum."""
        self.squares = float(number(extra, extra["squares"], "squares", least=0.0))

    def _scalars(self, group: Mapping[str, Any], step: int) -> dict[str, float]:
        """The step size, equal for all coordinates."""
        root = math.sqrt(group["initial"] ** 2 + self.squares) + group["eps"]
        return {"lr": float(group["lr"]) / root if root else 0.0}

    def update(self, oracle: Oracle) -> Tensor:
        """Compute one gradient and its norm, then update."""
        loss, grads = oracle.grad()
        norms = [full(g).double().square().sum() for g in grads if g is not None]
        self.squares += float(torch.stack(norms).sum()) if norms else 0.0
        self.apply(DESCENT, grads, scalars=self._scalars)
        return loss

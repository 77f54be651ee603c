"""ZO-SGD-Cons: a step along an estimate from values only where it lowers the loss."""

from __future__ import annotations

import torch
from torch import Tensor

from anyorder.estimators.differences import Differences
from anyorder.hyper import hyper
from anyorder.methods._from_values import FromValues
from anyorder.oracle import Oracle
from anyorder.points.composed import Scaled
from anyorder.points.directions import Shift


class ZOConservative(FromValues):
    r"""ZO-SGD-Cons: the best of three points along an estimate from two values per direction.

    With the estimate :math:`\hat g` of MeZO, a step goes to the point with the smallest loss among
    :math:`x`, :math:`x - \eta \hat g` and :math:`x + \eta \hat g`, on the same batch; on a tie to
    the first of these.

    State: none. Oracle calls per step: ``2 * directions + 3`` values. The returned loss is that at
    the point where the step began.

    Example:
        >>> import torch
        >>> from anyorder.methods.zo_conservative import ZOConservative
        >>> x = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = ZOConservative([x], lr=0.05)
        >>> for _ in range(200):
        ...     loss = optimizer.step(lambda: (x ** 2).sum())
        >>> bool(loss < 0.1), optimizer.calls.values
        (True, 1000)

    References:
        Bergou, Gorbunov and Richtarik (2020), "Stochastic three points method for unconstrained
        smooth minimization"; Zhang et al. (2024), "Revisiting Zeroth-Order Optimization for
        Memory-Efficient LLM Fine-Tuning: A Benchmark", arXiv 2402.11592.
    """

    estimator = Differences("eps", "directions")

    lr: float = hyper(
        1e-6, ge=0, search="log", low=1e-6, high=1e-2, unit="parameter / gradient",
        doc="learning rate",
    )  # fmt: skip

    def update(self, oracle: Oracle) -> Tensor:
        """Estimate, evaluate three points, and move to the best."""
        _, estimate, _ = self.estimator.estimate(self, oracle)
        rates = {
            name: float(group["lr"]) for group in self.param_groups for name in group["param_names"]
        }
        along = Scaled(estimate, rates)
        points = [Shift(), Shift(-1.0, along), Shift(1.0, along)]
        losses = oracle.values(points)
        best = points[int(torch.where(losses.isnan(), torch.inf, losses).argmin())]
        if best.direction is not None:
            self.move_(best.direction, lambda group: best.scale)
        return losses[0]

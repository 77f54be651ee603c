"""ZO-SGD-Sign: descent along signs of estimates from values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from anyorder.estimators.differences import Differences, descend
from anyorder.hyper import hyper
from anyorder.methods._from_values import FromValues
from anyorder.oracle import Oracle
from anyorder.points.composed import Sum
from anyorder.rules import Rule
from anyorder.rules.descent import DESCENT, SIGNS


class ZOSign(FromValues):
    r"""ZO-SGD-Sign: descent along the signs of an estimate from two values per direction.

    With Gaussian directions :math:`z_i` and slopes
    :math:`s_i = (f(x + \epsilon z_i) - f(x - \epsilon z_i)) / 2 \epsilon`:

    .. math::
        x \leftarrow x - \eta \operatorname{sign} \Big( \frac{1}{q} \sum_{i=1}^q s_i z_i \Big)

    Each weight moves by :math:`\eta` in each step. The released code of the benchmark instead moves
    by :math:`\eta \operatorname{sign}(s) z`, which is ``sign_of="slope"``: a Gaussian move of
    normalised length. Their learning rates are comparable.

    State: none. Oracle calls per step: ``2 * directions`` values. The returned loss is the mean of
    these values.

    Example:
        >>> import torch
        >>> from anyorder.methods.zo_sign import ZOSign
        >>> x = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = ZOSign([x], lr=0.02)
        >>> for _ in range(200):
        ...     loss = optimizer.step(lambda: (x ** 2).sum())
        >>> bool(loss < 0.1), optimizer.calls.values
        (True, 400)

    References:
        Liu et al. (2019), "signSGD via Zeroth-Order Oracle"; Zhang et al. (2024), "Revisiting
        Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning: A Benchmark", arXiv
        2402.11592.
    """

    estimator = Differences("eps", "directions")
    rules: ClassVar[Mapping[str, tuple[Rule, ...]]] = {"estimate": (SIGNS,), "slope": (DESCENT,)}

    lr: float = hyper(
        1e-5, ge=0, search="log", low=1e-5, high=1e-1, unit="parameter", doc="learning rate"
    )
    sign_of: str = hyper(
        "estimate",
        choices=("estimate", "slope"),
        doc="sign of each entry of the estimate (paper), or of the slopes (released code)",
    )
    weight_decay: float = hyper(0.0, ge=0, unit="1 / step size", doc="weight decay")

    def label(self, name: str, group: Mapping[str, Any]) -> str:
        """The rule for what the signs are taken of."""
        return group["sign_of"]

    def update(self, oracle: Oracle) -> Tensor:
        """Estimate the gradient, and move along signs."""
        loss, estimate, names = self.estimator.estimate(self, oracle)
        if self.sign_of == "slope":
            assert isinstance(estimate, Sum)
            share = 1.0 / len(estimate.terms)
            estimate = Sum([(math.copysign(share, s) if s else 0.0, z) for s, z in estimate.terms])
        descend(self, estimate, names)
        return loss

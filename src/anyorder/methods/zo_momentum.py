"""ZO-SGD-MMT: momentum descent on estimates from values."""

from __future__ import annotations

from anyorder.estimators.differences import Differences
from anyorder.hyper import hyper
from anyorder.methods._from_values import FromValues
from anyorder.rules.descent import HEAVY_BALL


class ZOMomentum(FromValues):
    r"""ZO-SGD-MMT: momentum descent on an estimate from two values per direction.

    With Gaussian directions :math:`z_i`:

    .. math::
        \hat g_t = \frac{1}{q} \sum_{i=1}^q
        \frac{f(x + \epsilon z_i) - f(x - \epsilon z_i)}{2 \epsilon} z_i, \qquad
        v_t = \mu v_{t-1} + \hat g_t, \qquad x_t = x_{t-1} - \eta v_t

    State: one buffer per parameter. Oracle calls per step: ``2 * directions`` values. The returned
    loss is the mean of these values.

    Example:
        >>> import torch
        >>> from anyorder.methods.zo_momentum import ZOMomentum
        >>> x = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = ZOMomentum([x], lr=0.01)
        >>> for _ in range(100):
        ...     loss = optimizer.step(lambda: (x ** 2).sum())
        >>> bool(loss < 0.1), optimizer.calls.values
        (True, 200)

    References:
        Zhang et al. (2024), "Revisiting Zeroth-Order Optimization for Memory-Efficient LLM
        Fine-Tuning: A Benchmark", arXiv 2402.11592.
    """

    estimator = Differences("eps", "directions")
    rule = HEAVY_BALL

    lr: float = hyper(
        1e-6, ge=0, search="log", low=1e-6, high=1e-2, unit="parameter / gradient",
        doc="learning rate",
    )  # fmt: skip
    momentum: float = hyper(
        0.9, ge=0, lt=1, search="linear", low=0.0, high=0.95, doc="momentum factor"
    )

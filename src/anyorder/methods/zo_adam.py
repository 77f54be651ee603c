"""ZO-Adam: Adam on estimates from values."""

from __future__ import annotations

from dataclasses import replace

from anyorder.estimators.differences import Differences
from anyorder.hyper import hyper
from anyorder.methods._from_values import FromValues
from anyorder.rules.adamw import ADAMW, adamw_scalars

RULE = replace(ADAMW, hypers={}, scalars=adamw_scalars(eps="adam_eps"))


class ZOAdam(FromValues):
    r"""ZO-Adam: Adam on an estimate from two values per direction.

    With Gaussian directions :math:`z_i`:

    .. math::
        \hat g_t &= \frac{1}{q} \sum_{i=1}^q
        \frac{f(x + \epsilon z_i) - f(x - \epsilon z_i)}{2 \epsilon} z_i \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) \hat g_t, \qquad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) \hat g_t^2 \\
        x_t &= (1 - \eta \lambda) x_{t-1}
               - \eta \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon_{Adam}}

    With few directions most of :math:`v` is the square of the slope and so the same in all
    parameters; the benefit is a step size that does not depend on the scale of the loss.

    State: two buffers per parameter. Oracle calls per step: ``2 * directions`` values. The returned
    loss is the mean of these values.

    Example:
        >>> import torch
        >>> from anyorder.methods.zo_adam import ZOAdam
        >>> x = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = ZOAdam([x], lr=0.05)
        >>> for _ in range(100):
        ...     loss = optimizer.step(lambda: (x ** 2).sum())
        >>> bool(loss < 0.1), optimizer.calls.values
        (True, 200)

    References:
        Zhang et al. (2024), "Revisiting Zeroth-Order Optimization for Memory-Efficient LLM
        Fine-Tuning: A Benchmark", arXiv 2402.11592.
    """

    estimator = Differences("eps", "directions")
    rule = RULE

    lr: float = hyper(
        1e-4, ge=0, search="log", low=1e-5, high=1e-1, unit="parameter", doc="learning rate"
    )
    betas: tuple[float, float] = ADAMW.hypers["betas"]
    adam_eps: float = hyper(1e-8, ge=0, unit="gradient", doc="added to Adam's denominator")
    weight_decay: float = hyper(0.0, ge=0, unit="1 / step size", doc="weight decay")

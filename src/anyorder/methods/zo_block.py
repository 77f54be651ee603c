"""Block-wise zeroth-order SGD: one layer or module at a time."""

from __future__ import annotations

from anyorder.estimators.differences import Differences
from anyorder.hyper import hyper
from anyorder.methods._from_values import FromValues
from anyorder.rules.descent import DESCENT


class ZOBlock(FromValues):
    r"""Block-wise zeroth-order SGD: perturbs and updates one layer or module at a time.

    For a block :math:`b` of the parameters and Gaussian directions :math:`z_i`, with zeros in the
    other blocks:

    .. math::
        \hat g_b = \frac{1}{q} \sum_{i=1}^q
        \frac{f(x + \epsilon z_i) - f(x - \epsilon z_i)}{2 \epsilon} z_i, \qquad
        x_b \leftarrow x_b - \eta \hat g_b

    The variance of the estimate grows with the number of parameters that are perturbed together, so
    that of a block is lower. One block is updated in each step, in turn: ``B`` steps with one batch
    are one Gauss-Seidel sweep over ``B`` blocks. With ``sweep="jacobi"`` a step evaluates all
    blocks at the same point and then updates all.

    A layer is what precedes the first number in a parameter's name, with the number
    (``encoder.layer.3``); without a number it is the module.

    State: none. Oracle calls per step: ``2 * directions`` values; for ``sweep="jacobi"`` that many
    for each block. The returned loss is the mean of these values.

    Departures from the paper's code: each block has directions of its own, and a step updates one
    block, so that a step that fails has changed nothing.

    Example:
        >>> import torch
        >>> from anyorder.methods.zo_block import ZOBlock
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
        >>> optimizer = ZOBlock(model, lr=0.01, sweep="jacobi")
        >>> loss = optimizer.step(lambda: model(torch.ones(1, 2)).square().mean())
        >>> optimizer.calls.values
        4

    References:
        Zhang et al. (2024), "Revisiting Zeroth-Order Optimization for Memory-Efficient LLM
        Fine-Tuning: A Benchmark", arXiv 2402.11592.
    """

    estimator = Differences("eps", "directions", "blocks", "sweep")
    rule = DESCENT

    lr: float = hyper(
        1e-6, ge=0, search="log", low=1e-6, high=1e-2, unit="parameter / gradient",
        doc="learning rate",
    )  # fmt: skip
    blocks: str = hyper(
        "layers", choices=("layers", "modules", "parameters"), doc="what is perturbed together"
    )

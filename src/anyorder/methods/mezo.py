"""MeZO: fine-tune with forward passes only."""

from __future__ import annotations

from torch import Tensor

from anyorder.estimators.differences import Differences
from anyorder.hyper import hyper
from anyorder.methods._from_values import FromValues
from anyorder.oracle import Oracle


class MeZO(FromValues):
    r"""MeZO: zeroth-order SGD with two forward passes per direction and the memory of inference.

    With Gaussian directions :math:`z_i`, regenerated from their seeds and never stored:

    .. math::
        g_i = \frac{f(x + \epsilon z_i) - f(x - \epsilon z_i)}{2 \epsilon}, \qquad
        x \leftarrow x - \eta \left( \frac{1}{n} \sum_{i=1}^n g_i z_i + \lambda x \right)

    The stored weights are never changed: each operation of the closure receives perturbed weights
    that are computed for it (:mod:`anyorder.points.substitution`). The weights are therefore
    bitwise unchanged in every dtype, and the memory is that of inference plus one layer. If PyTorch
    cannot intercept the operations that read a weight (compiled or scripted modules), the weight is
    perturbed in place and restored from a copy, which needs memory for these weights.

    With ``scaling="weights"`` each parameter is perturbed along :math:`z_i / c` and moved along
    :math:`g_i c z_i`, where :math:`c` is the root mean square of its weights: parameters with small
    weights are perturbed more. The estimate stays unbiased.

    State: none. Oracle calls per step: ``2 * directions`` values. The returned loss is the mean of
    these values. Both points use the same dropout masks.

    In half precision ``eps`` must be larger than the spacing of floating-point numbers at the
    magnitude of the weights (2^-8 of them in bfloat16), or most perturbations round to zero;
    ``explain`` warns about this.

    Departures from the paper's code: weight decay skips biases and normalisation layers as there
    (here: all parameters with fewer than two axes). There is no perturbing and restoring in place.
    Scaling by the norm of a parameter is divided by the root of its size, as the paper says; the
    code divides by the root of the norm. Other choices (one-sided differences, other directions and
    rules) are options of :class:`~anyorder.methods.zeroth_order.ZerothOrder`.

    Example:
        >>> import torch
        >>> from anyorder.methods.mezo import MeZO
        >>> x = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = MeZO([x], lr=0.05, eps=1e-3)
        >>> for _ in range(200):
        ...     loss = optimizer.step(lambda: (x ** 2).sum())
        >>> bool(loss < 0.1), optimizer.calls.values
        (True, 400)

    References:
        Malladi et al. (2023), "Fine-Tuning Language Models with Just Forward Passes",
        arXiv 2305.17333; Spall (1992).
    """

    estimator = Differences("eps", "directions", "scaling")

    lr: float = hyper(
        1e-6, ge=0, search="log", low=1e-6, high=1e-2, unit="parameter / slope", doc="learning rate"
    )
    weight_decay: float = hyper(0.0, ge=0, unit="slope / parameter", doc="weight decay of matrices")

    def update(self, oracle: Oracle) -> Tensor:
        """Evaluate two values per direction, then move along all directions."""
        loss, estimate, _ = self.estimator.estimate(self, oracle)
        if any(group["weight_decay"] for group in self.param_groups):
            self.shrink_(lambda group: 1.0 - float(group["lr"]) * group["weight_decay"])
        self.move_(estimate, lambda group: -float(group["lr"]))
        return loss

"""Forward gradient: exact derivatives along random directions, by forward-mode differentiation."""

from __future__ import annotations

from anyorder.estimators.differences import Differences
from anyorder.hyper import hyper
from anyorder.methods._from_values import FromValues
from anyorder.rules.descent import DESCENT


class ForwardGradient(FromValues):
    r"""Forward gradient: descent by exact derivatives along random directions, without a graph.

    .. math::
        \hat g = \frac{1}{q} \sum_{i=1}^q (z_i \cdot \nabla f(x)) z_i, \qquad
        x \leftarrow x - \eta \hat g

    One evaluation with dual numbers computes :math:`f(x)` and :math:`z \cdot \nabla f(x)`, at about
    the cost of two forward passes, in the memory of inference plus one layer and the tangents of
    its activations. The direction is generated for each operation and never stored. There is no
    perturbation size, so half precision needs no larger one, but each operation of the closure must
    have a forward-mode derivative (PyTorch names one that has none), and compiled or scripted code
    is refused.

    The derivative is that of the closure as it is: in training mode, with the dropout mask of the
    step. For fine-tuning call ``model.eval()`` first, as MeZO does.

    State: none. Oracle calls per step: ``directions`` directional derivatives (``calls.jvps``). The
    returned loss is that at the current point.

    Example:
        >>> import torch
        >>> from anyorder.methods.forward_gradient import ForwardGradient
        >>> x = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = ForwardGradient([x], lr=0.05)
        >>> for _ in range(200):
        ...     loss = optimizer.step(lambda: (x ** 2).sum())
        >>> bool(loss < 0.1), optimizer.calls.jvps, optimizer.calls.grads
        (True, 200, 0)

    References:
        Baydin et al. (2022), "Gradients without Backpropagation", arXiv 2202.08587; Zhang et al.
        (2024), arXiv 2402.11592.
    """

    estimator = Differences("directions", difference="jvp")
    rule = DESCENT

    lr: float = hyper(
        1e-6, ge=0, search="log", low=1e-6, high=1e-2, unit="parameter / gradient",
        doc="learning rate",
    )  # fmt: skip

"""Sparse MeZO: perturb and update only the smallest weights of each parameter."""

from __future__ import annotations

from anyorder.estimators.differences import Differences
from anyorder.hyper import hyper
from anyorder.methods._from_values import FromValues
from anyorder.rules.descent import DESCENT


class SparseMeZO(FromValues):
    r"""Sparse MeZO: zeroth-order SGD on the smallest weights of each parameter.

    With Gaussian directions :math:`z_i`, and for each parameter the threshold :math:`h` that leaves
    out the share ``sparsity`` of its largest entries in the first step:

    .. math::
        m = [\, |x| \le h \,], \qquad
        s_i = \frac{f(x + \epsilon m z_i) - f(x - \epsilon m z_i)}{2 \epsilon}, \qquad
        x \leftarrow x - \eta \frac{1}{q} \sum_{i=1}^q s_i m z_i

    Noise hurts most in large weights, so the stable learning rate is several times that of MeZO.
    The thresholds stay fixed; the mask follows the weights. It is computed from the unperturbed
    weights for each operation and never stored, so the passes of a step and its update have the
    same mask.

    State: one number for each tensor. Oracle calls per step: ``2 * directions`` values. The
    returned loss is the mean of these values.

    Departures from the paper: a parameter whose threshold is zero, such as a new bias or a LoRA
    factor, takes part as a whole, since it could never leave zero otherwise. Weight decay, if there
    is any, applies to all entries.

    Example:
        >>> import torch
        >>> from anyorder.methods.sparse_mezo import SparseMeZO
        >>> x = torch.nn.Parameter(torch.tensor([1.0, 2.0, 5.0, 9.0]))
        >>> optimizer = SparseMeZO([x], lr=0.05, sparsity=0.5)
        >>> for _ in range(200):
        ...     loss = optimizer.step(lambda: (x ** 2).sum())
        >>> x[2:].tolist(), bool(x[:2].abs().max() < 0.1)
        ([5.0, 9.0], True)

    References:
        Liu et al. (2024), "Sparse MeZO: Less Parameters for Better Performance in Zeroth-Order LLM
        Fine-Tuning", arXiv 2402.15751.
    """

    estimator = Differences("eps", "directions", "sparsity", mask="small")
    rule = DESCENT

    lr: float = hyper(
        1e-5, ge=0, search="log", low=1e-6, high=1e-2, unit="parameter / gradient",
        doc="learning rate",
    )  # fmt: skip

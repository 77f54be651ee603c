"""Accuracy of gradient directions estimated from ranks or from values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anyorder import Optimizer, RankSGD
from anyorder.problems import load
from anyorder_studies.tang2023zoranksgd.twin import ValueSGD

# Number of candidates, and number of the best that are ranked.
RANKED = ((15, 15), (15, 3), (15, 1), (50, 50))
VALUED = (15, 50)
MU = 0.01


def mean_cosines(dim: int, draws: int, seed: int) -> dict[str, float]:
    """Mean cosines between estimates and the gradient of a quadratic at its initial point.

    Args:
        dim: Dimension of the quadratic, whose condition number is 10.
        draws: Number of estimates to average.
        seed: Seed of the initial point and all candidates; ranks and values use the same ones.

    Returns:
        Mean cosines by information: ``ranks_M_K`` for the order of the best K of M, ``values_M``
        for M values.
    """
    told: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
        f"ranks_{m}_{k}": (RankSGD, {"points": m, "top": k}) for m, k in RANKED
    }
    told |= {f"values_{m}": (ValueSGD, {"points": m}) for m in VALUED}
    return {
        name: _mean_cosine(method, options, dim, draws, seed)
        for name, (method, options) in told.items()
    }


def _mean_cosine(
    method: type[Optimizer], options: dict[str, Any], dim: int, draws: int, seed: int
) -> float:
    problem = load("quadratic", dim=dim, condition=10.0)
    model = problem.build(seed)
    (x,) = model.parameters()
    closure = problem.closure(model, None)
    (gradient,) = torch.autograd.grad(closure(), x)
    start: Tensor = x.detach().clone()
    optimizer = method(model, lr=1.0, mu=MU, line_search=0, seed=seed, engine="eager", **options)
    total = 0.0
    for _ in range(draws):
        optimizer.step(closure)
        with torch.no_grad():
            total += float(torch.cosine_similarity(start - x, gradient, dim=0))
            x.copy_(start)
    return total / draws

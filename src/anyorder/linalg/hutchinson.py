"""Hutchinson's estimator of the diagonal of an operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from anyorder.engine import Engine
from anyorder.points.directions import Seeded


class Operator(Protocol):
    """A linear operator on lists of tensors."""

    def __matmul__(self, vector: list[Tensor], /) -> list[Tensor]:
        """Apply the operator to ``vector``."""
        ...


def diagonal(
    operator: Operator,
    params: Mapping[str, Tensor],
    probe: Callable[[int], Seeded],
    probes: int,
    engine: Engine,
) -> list[Tensor]:
    r"""Estimate the diagonal as the mean of :math:`z \odot A z` over sign vectors :math:`z`.

    Unbiased: :math:`E[z z'] = I`. The variance of an entry is the sum of squares of the rest of its
    row, so one probe is exact on a diagonal operator.

    Args:
        operator: symmetric, acting on tensors shaped like ``params``.
        params: parameters by name.
        probe: returns sign vector number ``i``.
        probes: number of sign vectors to average.
        engine: generates the signs.

    Returns:
        One tensor per parameter. Costs ``probes`` products.

    References:
        Bekas, Kokiopoulou and Saad (2007), "An estimator for the diagonal of a matrix".
    """
    total = [torch.zeros_like(p) for p in params.values()]
    for index in range(probes):
        direction = probe(index)
        signs = [direction.tensor(name, p, engine) for name, p in params.items()]
        for entry, sign, product in zip(total, signs, operator @ signs, strict=True):
            entry.add_(sign.view_as(product) * product, alpha=1.0 / probes)
    return total

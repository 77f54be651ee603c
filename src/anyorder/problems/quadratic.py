"""A rotated quadratic function with a chosen condition number."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from anyorder.problems._landscape import Landscape
from anyorder.problems.base import generator, require_number


class Quadratic(Landscape):
    r"""Minimise a quadratic function with rotated axes.

    .. math:: f(x) = \tfrac12 (x - s)^\top A\, (x - s)

    The eigenvalues of :math:`A` are spaced geometrically from ``1 / condition`` to 1. Its
    eigenvectors are a fixed random rotation, so scaling single coordinates does not solve the
    problem, and :math:`s` is a fixed random point. The initial point is :math:`s` plus standard
    normal noise.

    Args:
        dim: Number of coordinates.
        condition: Condition number of :math:`A`, at least 1.
    """

    name = "quadratic"
    target = 1e-6

    def __init__(self, *, dim: int = 20, condition: float = 100.0) -> None:
        """Check and store the options."""
        super().__init__(dim)
        require_number("condition", condition, at_least=1, owner=self.name)
        self.condition = condition
        fixed = generator(self.name, "matrix")
        square = torch.randn(dim, dim, dtype=torch.float64, generator=fixed)
        axes = cast(Tensor, torch.linalg.qr(square).Q)  # pyright: ignore
        powers = torch.linspace(-1, 0, dim, dtype=torch.float64)
        eigenvalues = torch.tensor(condition, dtype=torch.float64) ** powers
        self.matrix = (axes * eigenvalues) @ axes.T
        self.solution = torch.randn(dim, dtype=torch.float64, generator=fixed)

    def start(self, seed: int) -> Tensor:
        """Return the minimiser plus standard normal noise."""
        noise = torch.randn(self.dim, dtype=torch.float64, generator=generator(self.name, seed))
        return self.solution + noise

    def value(self, x: Tensor) -> Tensor:
        """Return the function value at ``x``."""
        away = x - self.solution.to(x)
        return 0.5 * away @ (self.matrix.to(x) @ away)

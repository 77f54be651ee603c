"""The Rosenbrock function: a curved valley."""

from __future__ import annotations

import torch
from torch import Tensor

from anyorder.problems._landscape import Landscape
from anyorder.problems.base import generator, require_number


class Rosenbrock(Landscape):
    r"""Follow a curved valley to its lowest point.

    .. math:: f(x) = \sum_{i=1}^{d-1} c\,(x_{i+1} - x_i^2)^2 + (1 - x_i)^2

    The minimum is 0 at :math:`(1, \dots, 1)`; for ``dim >= 4`` there can be a second, local one
    near :math:`(-1, 1, \dots, 1)`. Each coordinate of the initial point is uniform in [-2, 2].

    Args:
        dim: Number of coordinates, at least 2.
        condition: The factor :math:`c`, at least 1. In two dimensions the Hessian at the minimum
            has a condition number of about ``25 * condition``.

    References:
        H. H. Rosenbrock (1960), An automatic method for finding the greatest or least value of a
        function. The Computer Journal 3(3).
    """

    name = "rosenbrock"
    target = 1e-3

    def __init__(self, *, dim: int = 2, condition: float = 100.0) -> None:
        """Check and store the options."""
        super().__init__(dim, at_least=2)
        require_number("condition", condition, at_least=1, owner=self.name)
        self.condition = condition
        self.solution = torch.ones(dim, dtype=torch.float64)

    def start(self, seed: int) -> Tensor:
        """Return a point uniform in the box [-2, 2]."""
        draw = torch.rand(self.dim, dtype=torch.float64, generator=generator(self.name, seed))
        return 4 * draw - 2

    def value(self, x: Tensor) -> Tensor:
        """Return the function value at ``x``."""
        here, after = x[:-1], x[1:]
        return (self.condition * (after - here**2) ** 2 + (1 - here) ** 2).sum()

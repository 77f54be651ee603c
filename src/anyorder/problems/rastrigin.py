"""The Rastrigin function: a quadratic with very many local minima."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anyorder.problems._landscape import Landscape
from anyorder.problems.base import generator, require_number


class Rastrigin(Landscape):
    r"""Find the global minimum among very many local minima on a regular grid.

    .. math:: f(x) = \sum_{i=1}^{d} z_i^2 + 10\,(1 - \cos 2 \pi z_i),
              \qquad z_i = \kappa^{(i-1) / (2 (d-1))} (x_i - s_i)

    The minimum is 0 at a fixed point :math:`s` inside [-1, 1], away from the origin so that
    methods biased towards zero have no advantage. Each coordinate of the initial point is
    uniform in [-5.12, 5.12] around :math:`s`.

    Args:
        dim: Number of coordinates.
        condition: :math:`\kappa`, the ratio of the largest to the smallest curvature of the
            quadratic, at least 1.

    References:
        L. A. Rastrigin (1974), Systems of Extremal Control. Nauka, Moscow (in Russian).
    """

    name = "rastrigin"
    # The second-best minimum has the value 0.99, so only the global basin reaches this.
    target = 0.5

    def __init__(self, *, dim: int = 5, condition: float = 1.0) -> None:
        """Check and store the options."""
        super().__init__(dim)
        require_number("condition", condition, at_least=1, owner=self.name)
        self.condition = condition
        shift = torch.rand(dim, dtype=torch.float64, generator=generator(self.name, "solution"))
        self.solution = 2 * shift - 1
        exponents = torch.linspace(0, 0.5, dim, dtype=torch.float64)
        self._scales = torch.tensor(condition, dtype=torch.float64) ** exponents

    def start(self, seed: int) -> Tensor:
        """Return a point uniform in a box of half width 5.12 around the minimiser."""
        draw = torch.rand(self.dim, dtype=torch.float64, generator=generator(self.name, seed))
        return self.solution + 5.12 * (2 * draw - 1)

    def value(self, x: Tensor) -> Tensor:
        """Return the function value at ``x``."""
        z = self._scales.to(x) * (x - self.solution.to(x))
        return (z**2 + 10 * (1 - torch.cos(2 * math.pi * z))).sum()

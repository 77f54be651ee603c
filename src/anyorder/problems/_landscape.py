"""Analytic functions of one vector, as problems."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from anyorder.problems.base import Problem, evaluating, require_int


class Point(nn.Module):
    """A model with the single parameter ``x``, float64 of shape ``(dim,)``."""

    def __init__(self, start: Tensor) -> None:
        """Create the parameter from a copy of ``start``."""
        super().__init__()
        self.x = nn.Parameter(start.detach().clone())

    def forward(self) -> Tensor:
        """Return the parameter."""
        return self.x


class Landscape(Problem):
    """A deterministic function whose minimum is zero.

    There is no data: ``batch`` is None at every step. ``evaluate`` returns the value as ``loss``
    and the Euclidean ``distance`` to ``solution``.

    Args:
        dim: Number of coordinates.
        at_least: Smallest ``dim`` for which the function is defined.
    """

    optimum = 0.0
    solution: Tensor
    """The minimiser, float64 of shape ``(dim,)``; set by the subclass."""

    def __init__(self, dim: int, *, at_least: int = 1) -> None:
        """Check and store the number of coordinates."""
        require_int("dim", dim, at_least=at_least, owner=self.name)
        self.dim = dim

    @abstractmethod
    def start(self, seed: int) -> Tensor:
        """Return the initial point, float64 of shape ``(dim,)``."""

    @abstractmethod
    def value(self, x: Tensor) -> Tensor:
        """Return the function value at ``x``, a 0-dimensional tensor."""

    def build(self, seed: int) -> nn.Module:
        """Return a model at the initial point."""
        return Point(self.start(seed))

    def batch(self, seed: int, step: int) -> None:
        """Return None: the function needs no data."""
        return

    def loss(self, model: nn.Module, batch: None) -> Tensor:
        """Return the function value at the model's point."""
        return self.value(model())

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the value and the distance to the minimiser."""
        with evaluating(model):
            x: Tensor = model()
            distance = (x - self.solution.to(x)).square().sum().sqrt()
            return {"loss": self.value(x).item(), "distance": distance.item()}

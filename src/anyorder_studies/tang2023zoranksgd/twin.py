"""The counterpart of ZO-RankSGD with values: same points, same line search."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from anyorder import Optimizer, Oracle
from anyorder.hyper import hyper
from anyorder.methods.rank_sgd import ESTIMATE
from anyorder.points.directions import Dense, Shift


class ValueSGD(Optimizer):
    r"""Descend along differences of values, at the points that ZO-RankSGD would rank.

    With values :math:`f_i` at :math:`x + \mu z_i`, the estimate is :math:`\sum_i w_i z_i` with
    :math:`w_i \propto f_i - \bar f`, scaled so that :math:`\sum_i w_i^2` equals that of a full
    ranking of as many points. The only difference from ZO-RankSGD is thus the information.

    State: one buffer per parameter. Oracle calls per step: ``points + line_search + 2`` values,
    ``points`` without line search.
    """

    order = 0
    needs = frozenset({"value"})
    rule = ESTIMATE

    lr: float = hyper(0.1, ge=0, unit="parameter", doc="first step tried")
    mu: float = hyper(0.1, gt=0, unit="parameter", doc="spread of the points")
    points: int = hyper(10, ge=2, doc="points evaluated at a time")
    line_search: int = hyper(5, ge=0, doc="step sizes tried; 0 moves by lr")
    shrink: float = hyper(0.5, gt=0, lt=1, doc="factor between the step sizes tried")

    def __init__(self, params: Any, **options: Any) -> None:
        self._averaged = 0  # estimates averaged since the last improvement
        super().__init__(params, **options)

    def update(self, oracle: Oracle) -> Tensor:
        """Evaluate the points, then points along the estimate; move to the lowest."""
        points = [Shift(self.mu, self.direction(i)) for i in range(self.points)]
        values = oracle.values(points)
        self._estimate(weights(values))
        along = Dense(self.buffer("estimate"))
        if not self.line_search:
            self.move_(along, lambda group: -float(group["lr"]))
            return values.mean()
        steps = [Shift(-self.lr * self.shrink**i, along) for i in range(self.line_search)]
        shown = [Shift(), points[int(values.argmin())], *steps]
        won = shown[int(oracle.values(shown).argmin())]
        if won.direction is not None:
            self.move_(won.direction, lambda group: won.scale)
            self._averaged = 0
        return values.mean()

    def _estimate(self, given: list[float]) -> None:
        """Update the estimate with the values."""
        self._averaged = self._averaged + 1 if self.line_search else 1
        fresh = {name: torch.zeros_like(p) for name, p in self.named_params().items()}
        for index, weight in enumerate(given):
            self.direction(index).add_all_(fresh, weight, self.engine)
        numbers = {"averaged": float(self._averaged)}
        self.apply(ESTIMATE, list(fresh.values()), scalars=lambda group, step: numbers)

    def extra_state(self) -> dict[str, Any]:
        """Save the number of averaged estimates."""
        return {"averaged": self._averaged}

    def load_extra_state(self, extra: Mapping[str, Any]) -> None:
        """Load the number of averaged estimates."""
        self._averaged = extra["averaged"]


def weights(values: Tensor) -> list[float]:
    """Center the values and scale them to the sum of squares of the weights of a full ranking.

    Args:
        values: Losses at the points, shape ``(m,)``.
    """
    m = len(values)
    centred = values.double() - values.double().mean()
    size = float(centred.norm())
    # A full ranking weights rank r by (2 r - (m - 1)) over m (m - 1) / 2 pairs.
    full = math.sqrt((m * m - 1) * m / 3) / (m * (m - 1) / 2)
    return (centred * (full / size if size > 0 else 0.0)).tolist()

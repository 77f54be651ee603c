"""ZO-RankSGD: optimisation from rankings of candidates only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from anyorder.hyper import HyperError, hyper
from anyorder.optimizer.options import same_in_all_groups
from anyorder.optimizer.population import Population
from anyorder.optimizer.record import number
from anyorder.points.directions import Dense, Seeded, Shift
from anyorder.rules import Rule


def estimate_(param: Tensor, estimate: Tensor, fresh: Tensor, *, averaged: Tensor) -> None:
    """``m <- m + (e - m) / n``."""
    estimate.add_((fresh - estimate) / averaged)


ESTIMATE = Rule(estimate_, buffers=("estimate",), gradient=False, ends_step=False)


class RankSGD(Population):
    r"""ZO-RankSGD: descent from rankings of candidates by a person, a model or a simulator.

    1. Show :math:`m` points :math:`x + \mu z_i` with Gaussian :math:`z_i`; learn the ``top`` best
       in order. Each pair (:math:`i` better than :math:`j`) that follows is an edge of a graph
       :math:`E`; the estimate is

       .. math:: \hat g = \frac{1}{|E|} \sum_{(i, j) \in E} (z_j - z_i)

       which weighs the point of rank :math:`r < k` by :math:`2 r - (m - 1)` and the rest by
       :math:`k`, over :math:`|E| = k (k - 1) / 2 + k (m - k)`.
    2. Show :math:`x`, the best point of 1 and :math:`x - \eta \gamma^l \hat g` for
       :math:`l = 0, \dots, L - 1`; go to the best. If that is :math:`x` itself, stay, and average
       the next estimate with this one until something wins.

    Only the order matters: any increasing function of the loss gives the same run, bit for bit.

    State: one buffer per parameter (the estimate). Oracle calls per step: 2 rankings of ``points``
    and ``line_search + 2`` points (1 ranking without line search). The returned loss is NaN,
    because values are never used. ``ask`` and ``tell`` work without a closure, across restarts.

    Departures from the paper: the published code weighs the point of rank r by m - 2r, so that its
    weights do not sum to zero; the formula above is the paper's.

    Example:
        >>> import torch
        >>> from anyorder.methods.rank_sgd import RankSGD
        >>> x = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = RankSGD([x], lr=1.0)
        >>> for _ in range(30):
        ...     loss = optimizer.step(lambda: (x ** 2).sum())
        >>> bool((x ** 2).sum() < 0.1), optimizer.calls.rankings
        (True, 60)

    References:
        Tang et al. (2024), "Zeroth-Order Optimization Meets Human Feedback", arXiv 2303.03751.
    """

    order = "rank"
    needs = frozenset({"rank"})
    rule = ESTIMATE

    lr: float = hyper(
        0.1,
        ge=0,
        search="log",
        low=1e-3,
        high=10.0,
        unit="parameter",
        doc="learning rate; first step size of the line search",
    )
    mu: float = hyper(
        0.1,
        gt=0,
        search="log",
        low=1e-3,
        high=10.0,
        unit="parameter",
        doc="scale of the random points",
    )
    points: int = hyper(10, ge=2, doc="points per ranking (m)")
    top: int = hyper(0, ge=0, doc="number of best points that are ranked (k); 0 for all")
    line_search: int = hyper(5, ge=0, doc="step sizes in the line search (L); 0 to use lr")
    shrink: float = hyper(0.5, gt=0, lt=1, doc="factor between these step sizes (gamma)")

    def __init__(self, params: Any, **options: Any) -> None:
        self._best: int | None = None  # number of the best point of part 1, when that is done
        self._averaged = 0  # estimates averaged since something last won
        super().__init__(params, **options)  # pyright: ignore[reportCallIssue]

    def check_group(self, group: dict[str, Any]) -> None:
        """Check that all groups have equal options, because a ranking covers all parameters."""
        if group["top"] > group["points"]:
            raise HyperError(
                f"top: expected at most points = {group['points']}, got {group['top']}"
            )
        why = "a ranking judges all at once"
        same_in_all_groups(self.hypers, group, self.param_groups, why)

    def ask(self) -> list[Shift]:
        """Part 1's points, or part 2's once part 1 is told."""
        if self._best is None:
            return [Shift(self.mu, self._drawn(i)) for i in range(self.points)]
        estimate = Dense(self.buffer("estimate"))
        steps = [Shift(-self.lr * self.shrink**i, estimate) for i in range(self.line_search)]
        return [Shift(), Shift(self.mu, self._drawn(self._best)), *steps]

    def learn(self, answer: list[int]) -> bool:
        """Part 1's order makes the estimate, part 2's the move."""
        shown = self.ask()
        if self._best is None:
            self._estimate(answer[: self.top or self.points])
            if self.line_search:
                self._best = answer[0]
                return False
            self.move_(Dense(self.buffer("estimate")), lambda group: -float(group["lr"]))
        else:
            won = shown[answer[0]]
            if won.direction is not None:
                self.move_(won.direction, lambda group: won.scale)
                self._averaged = 0
            self._best = None
        return True

    def _drawn(self, index: int) -> Seeded:
        """The direction of point ``index`` of the present step."""
        return self.direction(index)

    def _estimate(self, order: list[int]) -> None:
        """Fold the comparisons that follow from ``order`` into the estimate."""
        m, k = self.points, len(order)
        edges = k * (k - 1) / 2 + k * (m - k)
        weights = [float(k)] * m
        for rank, point in enumerate(order):
            weights[point] = 2.0 * rank - (m - 1)
        self._averaged = self._averaged + 1 if self.line_search else 1
        fresh = {
            name: torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32))
            for name, p in self.named_params().items()
        }
        for index, weight in enumerate(weights):
            self._drawn(index).add_all_(fresh, weight / edges, self.engine)
        numbers = {"averaged": float(self._averaged)}
        self.apply(ESTIMATE, list(fresh.values()), scalars=lambda group, step: numbers)

    def extra_state(self) -> dict[str, Any]:
        """Where between the two questions we are."""
        return {"best": self._best, "averaged": self._averaged}

    def load_extra_state(self, extra: Mapping[str, Any]) -> None:
        """Go on between the two questions."""
        best = extra["best"]
        last = extra.get("settings", self.param_groups[0])["points"] - 1
        if best is not None:
            number(extra, best, "best", least=0, most=last, whole=True)
        self._averaged = number(extra, extra["averaged"], "averaged", least=0, whole=True)
        self._best = best

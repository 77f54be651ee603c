"""ZO-RankSGD: optimisation from rankings of candidates only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from anyorder.hyper import HyperError, hyper
from anyorder.optimizer.options import same_in_all_groups
from anyorder.optimizer.population import Population
from anyorder.optimizer.record import number
from anyorder.oracle.closures import Order, RankingError
from anyorder.points.directions import Dense, Seeded, Shift
from anyorder.rules import Rule

#: Largest factor by which ``adapt`` changes ``lr`` or ``mu``, up or down.
FARTHEST = 2.0**20


def estimate_(param: Tensor, estimate: Tensor, fresh: Tensor, *, averaged: Tensor) -> None:
    """``m <- m + (e - m) / n``."""
    estimate.add_((fresh - estimate) / averaged)


ESTIMATE = Rule(estimate_, buffers=("estimate",), gradient=False, ends_step=False)


def weights(groups: Sequence[Sequence[int]], points: int) -> tuple[list[float], int]:
    """Weights of the points in a comparison graph, and its number of edges.

    Args:
        groups: positions of the ranked points, best first; those of one group tie.
        points: number of points; those that are not ranked lie below all others.

    Returns:
        For each point the number of points above it minus the number below it, and the number of
        pairs of which one is known to be better.
    """
    ranked = sum(map(len, groups))
    found, above, edges = [float(ranked)] * points, 0, ranked * (points - ranked)
    for group in groups:
        for point in group:
            found[point] = float(above - (points - above - len(group)))
        edges += above * len(group)
        above += len(group)
    return found, edges


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
    The length of :math:`\hat g` therefore does not shrink near a minimum. The line search makes up
    for that; with ``line_search=0`` let ``lr`` fall over the run, or the run ends at a distance
    from the minimum that is proportional to ``lr``.

    A ranking may name fewer than all points (the rest then share the last place), but not fewer
    than ``top``. Points that tie stand in a list of their own, ``[2, [0, 3], 1]``, and have no edge
    between them. If all points of 1 tie, nothing is learned and the step ends there; if several
    points of 2 tie for the best, the first of them in the list of ``ask`` wins, :math:`x` before
    all others. Points with equal values count as ordered as they are shown.

    With ``adapt`` the scales follow the rankings: :math:`\eta` is doubled (more exactly, divided by
    ``shrink``) when the longest step wins, and halved when the shortest one or :math:`x` wins;
    :math:`\mu` is doubled when the best random point wins, and halved when :math:`x` wins. If all
    points of a question tie, they are too close to be told apart, so :math:`\mu`, and in 2 also
    :math:`\eta`, is doubled. Then ``lr`` and ``mu`` need not fit the unit of the parameters.

    State: one buffer per parameter (the estimate). Oracle calls per step: 2 rankings of ``points``
    and ``line_search + 2`` points (1 ranking without line search). The returned loss is NaN,
    because values are never used. ``ask`` and ``tell`` work without a closure, across restarts.

    Departures from the paper: the published code weighs the point of rank r by m - 2r, so that its
    weights do not sum to zero; the formula above is the paper's. Ties and ``adapt`` are not in the
    paper; neither changes a run without ties and with ``adapt=False``.

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
    adapt: bool = hyper(False, doc="let lr and mu follow what wins the line search")

    def __init__(self, params: Any, **options: Any) -> None:
        self._best: int | None = None  # number of the best point of part 1, when that is done
        self._averaged = 0  # estimates averaged since something last won
        self._lr_factor = self._mu_factor = 1.0  # of ``adapt``
        super().__init__(params, **options)  # pyright: ignore[reportCallIssue]

    def check_group(self, group: dict[str, Any]) -> None:
        """Check that all groups have equal options, because a ranking covers all parameters."""
        if group["top"] > group["points"]:
            raise HyperError(
                f"top: expected at most points = {group['points']}, got {group['top']}"
            )
        if group["adapt"] and not group["line_search"]:
            raise HyperError("adapt: expected line_search > 0, whose winner it follows, got 0")
        why = "a ranking judges all at once"
        same_in_all_groups(self.hypers, group, self.param_groups, why)

    def ask(self) -> list[Shift]:
        """Part 1's points, or part 2's once part 1 is told."""
        mu = self.mu * self._mu_factor
        if self._best is None:
            return [Shift(mu, self._drawn(i)) for i in range(self.points)]
        estimate, lr = Dense(self.buffer("estimate")), self.lr * self._lr_factor
        steps = [Shift(-lr * self.shrink**i, estimate) for i in range(self.line_search)]
        return [Shift(), Shift(mu, self._drawn(self._best)), *steps]

    def learn(self, answer: list[int]) -> bool:
        """Part 1's order makes the estimate, part 2's the move."""
        groups = answer.groups if isinstance(answer, Order) else [[point] for point in answer]
        if self._best is not None:
            self._go_to(groups[0])
            return True
        known, edges = weights(self._best_groups(groups), self.points)
        if not edges:  # all tie
            self._scale(mu=1 / self.shrink)
            return True
        self._estimate([weight / edges for weight in known])
        if self.line_search:
            self._best = groups[0][0]
            return False
        self.move_(Dense(self.buffer("estimate")), lambda group: -float(group["lr"]))
        return True

    def _drawn(self, index: int) -> Seeded:
        """The direction of point ``index`` of the present step."""
        return self.direction(index)

    def _best_groups(self, groups: list[list[int]]) -> list[list[int]]:
        """The ``top`` best, and what ties with the last of them."""
        if not self.top:
            return groups
        count = sum(map(len, groups))
        if count < self.top:
            raise RankingError(
                f"expected the best {self.top} (option top) of {self.points} points in order, got "
                f"{count}: {groups}"
            )
        ranked, found = 0, list[list[int]]()
        for group in groups:
            if ranked < self.top:
                found.append(group)
            ranked += len(group)
        return found

    def _estimate(self, known: list[float]) -> None:
        """Fold the weighted directions into the estimate."""
        self._averaged = self._averaged + 1 if self.line_search else 1
        fresh = {
            name: torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32))
            for name, p in self.named_params().items()
        }
        for index, weight in enumerate(known):
            self._drawn(index).add_all_(fresh, weight, self.engine)
        numbers = {"averaged": float(self._averaged)}
        self.apply(ESTIMATE, list(fresh.values()), scalars=lambda group, step: numbers)

    def _go_to(self, best: list[int]) -> None:
        """Move to the winner of part 2, the first of those that tie for the best."""
        shown, place = self.ask(), best[0]
        won = shown[place]
        if won.direction is not None:
            self.move_(won.direction, lambda group: won.scale)
            self._averaged = 0
        self._best = None
        longer, shorter = 1 / self.shrink, self.shrink
        if place == 0 and len(best) > 1:  # nothing is known to be worse
            if len(best) == len(shown):
                self._scale(lr=longer, mu=longer)
            return
        if place == 2:  # the longest step
            self._scale(lr=longer)
        elif place in (0, 1 + self.line_search):
            self._scale(lr=shorter)
        if place < 2:
            self._scale(mu=longer if place else shorter)

    def _scale(self, *, lr: float = 1.0, mu: float = 1.0) -> None:
        """Multiply the factors of ``adapt``."""
        if self.adapt:
            self._lr_factor = min(FARTHEST, max(1 / FARTHEST, self._lr_factor * lr))
            self._mu_factor = min(FARTHEST, max(1 / FARTHEST, self._mu_factor * mu))

    def extra_state(self) -> dict[str, Any]:
        """Where between the two questions we are, and the factors of ``adapt``."""
        return {
            "best": self._best,
            "averaged": self._averaged,
            "lr_factor": self._lr_factor,
            "mu_factor": self._mu_factor,
        }

    def load_extra_state(self, extra: Mapping[str, Any]) -> None:
        """Go on between the two questions."""
        best = extra["best"]
        last = extra.get("settings", self.param_groups[0])["points"] - 1
        if best is not None:
            number(extra, best, "best", least=0, most=last, whole=True)
        averaged = number(extra, extra["averaged"], "averaged", least=0, whole=True)
        factors = [
            number(extra, extra.get(name, 1.0), name, least=1 / FARTHEST, most=FARTHEST)
            for name in ("lr_factor", "mu_factor")  # not in checkpoints of version 0.1
        ]
        self._best, self._averaged = best, averaged
        self._lr_factor, self._mu_factor = factors

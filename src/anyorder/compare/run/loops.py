"""Optimizers that run their own loop, driven step by step.

Such an optimizer calls functions of a vector. Its loop is a generator of requests (losses,
gradients, Hessian products) and iterates: a step of a run answers requests with its batch until the
next iterate. The parameters then hold that iterate, never a trial point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anyorder.compare.plan.entrants import Entrant
from anyorder.compare.run.libraries import (
    IDLE_STARTS,
    Gradient,
    Iterate,
    Losses,
    Product,
    Vector,
    restarted,
    values_left,
)
from anyorder.oracle import ClosureOracle
from anyorder.oracle.closure_oracle import Learned
from anyorder.oracle.closures import Closure
from anyorder.oracle.curvature import Hessian
from anyorder.oracle.ledger import Budget, BudgetExhausted, Calls
from anyorder.points.directions import Shift

#: Orders points by their losses: positions, best first.
Order = Callable[[Tensor], Sequence[int]]


class Converged(BudgetExhausted):
    """The loop ended by itself, and starting it again changes nothing."""


class Loop:
    """An entrant that runs its own loop.

    All requests of a step are answered with the same batch, the same random numbers and the same
    buffers. When the loop ends by itself, it is started again from its result.
    """

    #: It has no ``torch.optim.Optimizer``.
    optimizer = None
    kept_bytes = 0

    def __init__(
        self,
        entrant: Entrant,
        model: nn.Module,
        config: Mapping[str, Any],
        budget: Budget,
        seed: int,
    ) -> None:
        assert entrant.tool is not None
        tool, options = entrant.tool, {**entrant.fixed, **config}
        # None stands for the library's own default.
        options = {name: value for name, value in options.items() if value is not None}
        self.calls = Calls()
        self._model, self._budget, self._tool = model, budget, tool
        self._params = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._iterate = self._read()
        self._requests = restarted(tool, options, self._iterate, seed, values_left(budget))
        self._learned = Learned()
        self._order: Order | None = None

    def prepare(self, steps_left: float) -> None:
        """Do nothing: the parameters only hold complete iterates."""

    def keep(self) -> None:
        """Do nothing, see :meth:`prepare`."""

    def judge(self, order: Order) -> None:
        """Answer the next step's requests for losses with the places of the points."""
        self._order = order

    def step(self, closure: Closure) -> Tensor | None:
        """Answer requests until the next iterate.

        Returns:
            The first loss of the step, if any.

        Raises:
            BudgetExhausted: the budget ended within the step, which is undone.
            Converged: the loop has ended.
        """
        buffers = [(each, each.clone()) for each in self._model.buffers()]
        desk = _Desk(self, closure, self._order)
        try:
            answer: Any = None
            while not isinstance(request := self._next(answer), Iterate):
                answer = desk.answer(request)
            self._iterate = request.point
        except BaseException:
            with torch.no_grad():
                for buffer, copy in buffers:
                    buffer.copy_(copy)
            raise
        finally:
            desk.close()
            self.write(self._iterate)
        return desk.first

    def _next(self, answer: Any) -> Losses | Gradient | Product | Iterate:
        try:
            return self._requests.send(answer)
        except StopIteration:
            raise Converged(
                f"{self._tool.path} ended by itself {IDLE_STARTS} times without an iteration"
            ) from None

    # Vectors -------------------------------------------------------------------------------

    def oracle(self, closure: Closure, **more: Any) -> ClosureOracle:
        """Return an oracle at the current parameters."""
        return ClosureOracle(
            closure,
            self._params,
            module=self._model,
            nonfinite="ignore",
            advance=True,
            learned=self._learned,
            **more,
        )

    @property
    def curved(self) -> bool:
        """Whether the loop requests products with the Hessian."""
        return self._tool.uses in ("both", "hessian")

    @property
    def counted(self) -> dict[str, Any]:
        """Arguments of an oracle that counts, within the budget."""
        return {"calls": self.calls, "budget": self._budget}

    def _read(self) -> Vector:
        parts = [p.detach().reshape(-1).double().cpu() for p in self._params.values()]
        return torch.cat(parts).numpy()

    @torch.no_grad()
    def write(self, point: Vector) -> None:
        """Set the parameters."""
        for param, part in zip(self._params.values(), self.parts(point), strict=True):
            param.copy_(part)

    def parts(self, vector: Vector) -> list[Tensor]:
        """The vector as tensors like the parameters."""
        whole = torch.from_numpy(np.array(vector, dtype=np.float64))
        sizes = [p.numel() for p in self._params.values()]
        return [
            part.reshape(p.shape).to(p)
            for part, p in zip(whole.split(sizes), self._params.values(), strict=True)
        ]

    def flat(self, parts: Sequence[Tensor | None]) -> Vector:
        """Tensors like the parameters as one vector; None is 0."""
        filled = [
            torch.zeros_like(p) if part is None else part
            for part, p in zip(parts, self._params.values(), strict=True)
        ]
        return torch.cat([part.detach().reshape(-1).double().cpu() for part in filled]).numpy()


class _Desk:
    """Answers the requests of one step."""

    def __init__(self, loop: Loop, closure: Closure, order: Order | None) -> None:
        self.first: Tensor | None = None
        self._loop, self._closure, self._order = loop, closure, order
        self._oracle = loop.oracle(closure, **loop.counted)
        self._hessian: tuple[Vector, Hessian] | None = None

    def answer(self, request: Losses | Gradient | Product) -> Any:
        """Return what a request asks for."""
        if isinstance(request, Losses):
            if self._order is None:
                return self._losses(request.points, self._oracle).tolist()
            return self._places(request.points, self._order)
        if isinstance(request, Gradient):
            loss, grads = self._gradient(request.point)
            self._saw(loss)
            return loss.item(), self._loop.flat(grads)
        return self._loop.flat(self._curvature(request.point) @ self._loop.parts(request.vector))

    def close(self) -> None:
        """Free the graph of the Hessian."""
        if self._hessian is not None:
            self._hessian[1].__exit__(None, None, None)
            self._hessian = None

    def _losses(self, points: Sequence[Vector], oracle: ClosureOracle) -> Tensor:
        found: list[Tensor] = []
        for point in points:
            self._go(point)
            found.append(oracle.value())
        if self._order is None:
            self._saw(found[0])
        return torch.stack(found).double()

    def _places(self, points: Sequence[Vector], order: Order) -> list[float]:
        """The place of each point in a ranking; those left out share the last one."""
        unseen = self._loop.oracle(self._closure)  # the judge's own look at the points
        ranked = self._loop.oracle(
            self._closure,
            ranker=lambda shifts: order(self._losses(points, unseen)),
            **self._loop.counted,
        ).rank([Shift()] * len(points))
        places = {point: place for place, point in enumerate(ranked)}
        return [float(places.get(point, len(ranked))) for point in range(len(points))]

    def _gradient(self, point: Vector) -> tuple[Tensor, list[Tensor | None]]:
        """Loss and gradient; with a graph where products at the same point may follow."""
        if self._loop.curved:
            found = self._curvature(point)
            return found.loss, found.grads
        self._go(point)
        return self._oracle.grad()

    def _curvature(self, point: Vector) -> Hessian:
        """The Hessian at a point, kept until another point is needed."""
        if self._hessian is None or not np.array_equal(self._hessian[0], point):
            self.close()
            self._go(point)
            found = self._oracle.hessian()
            assert isinstance(found, Hessian)
            self._hessian = (point, found)
        return self._hessian[1]

    def _go(self, point: Vector) -> None:
        self._loop.write(point)

    def _saw(self, loss: Tensor) -> None:
        if self.first is None:
            self.first = loss.detach()

"""Optimizers that run their own loop, driven step by step.

Such an optimizer calls functions of a vector. Its loop is a generator of requests (losses,
gradients, Hessian products) and iterates: a step of a run answers requests with its batch until the
next iterate. The parameters then hold that iterate, never a trial point.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anyorder.compare.plan.entrants import Entrant
from anyorder.compare.plan.tools import Tool, make_sampler
from anyorder.extras import require
from anyorder.oracle import ClosureOracle
from anyorder.oracle.closure_oracle import Learned
from anyorder.oracle.closures import Closure
from anyorder.oracle.curvature import Hessian
from anyorder.oracle.ledger import Budget, BudgetExhausted, Calls
from anyorder.points.directions import Shift

Vector = Any  #: numpy array, float64, shape (parameters,)
#: Orders points by their losses: positions, best first.
Order = Callable[[Tensor], Sequence[int]]
#: A loop has converged if it ends by itself this often in a row without an iterate.
IDLE_STARTS = 3


class Converged(BudgetExhausted):
    """The loop ended by itself, and starting it again changes nothing."""


@dataclass
class Losses:
    """Request for the losses at points; the answer is a list of numbers."""

    points: Sequence[Vector]


@dataclass
class Gradient:
    """Request for loss and gradient at a point; the answer is a pair."""

    point: Vector


@dataclass
class Product:
    """Request for a product with the Hessian at a point; the answer is a vector."""

    point: Vector
    vector: Vector


@dataclass
class Iterate:
    """The end of an iteration, and its result."""

    point: Vector


Requests = Generator[Losses | Gradient | Product | Iterate, Any, Vector]


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
        self._requests = _restarted(tool, options, self._iterate, seed, _values_left(budget))
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


# --- Loops -------------------------------------------------------------------------------------


def _values_left(budget: Budget) -> int | None:
    """Return how many losses the budget allows, for optimizers that plan ahead."""
    if budget.forwards is None or not budget.rates.get("values"):
        return None
    return int(budget.forwards / budget.rates["values"])


def _restarted(
    tool: Tool, options: dict[str, Any], start: Vector, seed: int, values: int | None
) -> Requests:
    """Run the loop of a tool again and again, each time from the result of the last."""
    attempt, idle, point = 0, 0, start
    while idle < IDLE_STARTS:
        numbers = np.random.default_rng([seed, attempt])
        loop = _LOOPS[tool.library](tool, options, point, int(numbers.integers(2**31)), values)
        iterations, answer = 0, None
        while True:
            try:
                request = loop.send(answer)
            except StopIteration as ended:
                point = ended.value
                break
            iterations += isinstance(request, Iterate)
            answer = yield request
        attempt, idle = attempt + 1, 0 if iterations else idle + 1
        yield Iterate(point)
    return point


def _scipy(
    tool: Tool, options: dict[str, Any], start: Vector, seed: int, values: int | None
) -> Requests:
    """``scipy.optimize.minimize``; an iterate is what it passes to its callback."""
    optimize = require("scipy.optimize")
    # The budget ends a run.
    lasting = {"maxiter": 10**9} if tool.name in ("Nelder-Mead", "Powell") else {}
    given = {**lasting, **options}

    def run(ask: Callable[[Any], Any]) -> Vector:
        def loss(point: Vector) -> float:
            return ask(Losses([point.copy()]))[0]

        def gradient(point: Vector) -> Vector:
            return ask(Gradient(point.copy()))[1]

        def both(point: Vector) -> tuple[float, Vector]:
            return ask(Gradient(point.copy()))

        def product(point: Vector, vector: Vector) -> Vector:
            return ask(Product(point.copy(), vector.copy()))

        functions: dict[str, Any] = {
            "value": {"fun": loss},
            "grad": {"fun": both, "jac": True},
            "both": {"fun": both, "jac": True, "hessp": product},
            "hessian": {"fun": loss, "jac": gradient, "hessp": product},
        }[tool.uses]
        found = optimize.minimize(
            x0=start, method=tool.name, tol=given.pop("tol", None), options=given,
            callback=lambda point, *state: ask(Iterate(np.array(point))), **functions,
        )  # fmt: skip
        return np.array(found.x)

    return (yield from _inverted(run))


class _Stop(BaseException):
    """Ends the thread of a loop that is no longer needed."""


def _inverted(run: Callable[[Callable[[Any], Any]], Vector]) -> Requests:
    """Turn a function that calls ``ask(request)`` into a generator of requests.

    The function runs in a thread. One of the two threads always waits for the other, so that
    results do not depend on timing, and PyTorch is only used in the thread of the run.
    """
    requests: SimpleQueue[Any] = SimpleQueue()
    answers: SimpleQueue[Any] = SimpleQueue()
    results: list[Any] = []

    def ask(request: Any) -> Any:
        requests.put(request)
        answer = answers.get()
        if answer is _Stop:
            answers.put(_Stop)  # for a library that catches it and continues
            raise _Stop
        return answer

    def main() -> None:
        try:
            results.append(run(ask))
        except BaseException as error:
            results.append(error)
        requests.put(None)

    thread = threading.Thread(target=main, name="anyorder loop", daemon=True)
    thread.start()
    try:
        while (request := requests.get()) is not None:
            answers.put((yield request))
        if isinstance(results[0], BaseException):
            raise results[0]
        return results[0]
    finally:
        answers.put(_Stop)
        thread.join()


def _optuna(
    tool: Tool, options: dict[str, Any], start: Vector, seed: int, values: int | None
) -> Requests:
    """Trials in a box around the start; an iterate is the best point so far."""
    optuna = require("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    radius = options.get("radius", tool.defaults["radius"])
    box = {
        f"x{index}": optuna.distributions.FloatDistribution(middle - radius, middle + radius)
        for index, middle in enumerate(start.tolist())
    }
    study = optuna.create_study(sampler=make_sampler(tool.documented, options, seed))
    study.enqueue_trial(dict(zip(box, start.tolist(), strict=True)))
    best, least = start, math.inf
    while True:
        trial = study.ask(box)
        point = np.array([trial.params[name] for name in box])
        loss = _number((yield Losses([point]))[0])
        study.tell(trial, loss)
        if loss < least:
            best, least = point, loss
        yield Iterate(best)


def _nevergrad(
    tool: Tool, options: dict[str, Any], start: Vector, seed: int, values: int | None
) -> Requests:
    """Ask and tell; an iterate is the optimizer's recommendation."""
    nevergrad = require("nevergrad", extra="blackbox")
    space = nevergrad.p.Array(init=start).set_mutation(
        sigma=options.get("sigma", tool.defaults["sigma"])
    )
    space.random_state.seed(seed)
    optimizer = tool.documented(space, budget=values, num_workers=1)
    while True:
        candidate = optimizer.ask()
        answers = yield Losses([candidate.value])
        optimizer.tell(candidate, _number(answers[0]))
        yield Iterate(optimizer.provide_recommendation().value)


def _cma(
    tool: Tool, options: dict[str, Any], start: Vector, seed: int, values: int | None
) -> Requests:
    """Generations; an iterate is the mean of the distribution, which pycma recommends."""
    given = {**tool.defaults, **options}
    sigma = given.pop("sigma0")
    # Its own generator: by default pycma seeds the global one of NumPy.
    randn = np.random.RandomState(seed).randn
    # -10: no output, and no file in the working folder is read.
    own = {"seed": math.nan, "randn": randn, "verbose": -10, "verb_log": 0}
    strategy = tool.documented(start, sigma, {**own, **given})
    while not strategy.stop():
        points = strategy.ask()
        answers = yield Losses(points)
        strategy.tell(points, [_number(each) for each in answers])
        yield Iterate(strategy.result.xfavorite)
    return strategy.result.xfavorite


def _number(loss: float) -> float:
    """NaN is worse than any number."""
    return math.inf if math.isnan(loss) else loss


_LOOPS: dict[str, Callable[..., Requests]] = {
    "scipy": _scipy,
    "optuna": _optuna,
    "nevergrad": _nevergrad,
    "cma": _cma,
}

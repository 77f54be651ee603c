"""The loops of other libraries, as generators of requests.

A request is answered by sending to the generator. Each loop ends with its result, or never.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np

from anyorder.compare.plan.tools import Tool, make_sampler
from anyorder.extras import require
from anyorder.oracle.ledger import Budget

Vector = Any  #: numpy array, float64, shape (parameters,)
#: A loop has converged if it ends by itself this often in a row without an iterate.
IDLE_STARTS = 3


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


# --- Any library -------------------------------------------------------------------------------


def values_left(budget: Budget) -> int | None:
    """Return how many losses the budget allows, for optimizers that plan ahead."""
    if budget.forwards is None or not budget.rates.get("values"):
        return None
    return int(budget.forwards / budget.rates["values"])


def restarted(
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

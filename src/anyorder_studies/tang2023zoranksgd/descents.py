"""Comparison of ranks and values with equal numbers of evaluations."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from anyorder import MeZO, Optimizer, RankSGD
from anyorder.extras import require
from anyorder.problems import Problem, load
from anyorder_studies.contest import choose, descend
from anyorder_studies.tang2023zoranksgd.boosting import Boosting
from anyorder_studies.tang2023zoranksgd.scales import LengthScales
from anyorder_studies.tang2023zoranksgd.twin import ValueSGD

POINTS, LINE_SEARCH = 15, 5
# Evaluations per step: the points, the line search, the current point and the best one.
# CMA-ES in ten dimensions has a population of 4 + floor(3 ln 10).
PER_STEP = {
    "ranks": POINTS + LINE_SEARCH + 2,
    "values": POINTS + LINE_SEARCH + 2,
    "mezo": 2,
    "cma": 10,
}
TASKS = ("quadratic", "rosenbrock", "scales", "boosting")
# Ten settings for each method: first step and spread, or step size. MeZO's steps have the unit # of
# the problem, so each problem has its own half decades.
_SEARCHED = [[lr, mu] for lr in (0.1, 0.3, 1.0, 3.0, 10.0) for mu in (0.01, 0.1)]
GRIDS: dict[str, dict[str, list[list[float]]]] = {
    "quadratic": {
        "mezo": [[lr] for lr in (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)]
    },
    "rosenbrock": {
        "mezo": [[lr] for lr in (1e-7, 3e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3)]
    },
    "scales": {"mezo": [[lr] for lr in (3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)]},
    # The loss is constant in between trees, so two values at a distance of 1e-4 tell nothing: the
    # third is CMA-ES, with its initial standard deviation. It gets the order of the losses alone.
    "boosting": {"cma": [[s] for s in (0.03, 0.06, 0.1, 0.2, 0.3, 0.6, 1.0, 2.0, 3.0, 6.0)]},
}
for _task in TASKS:
    GRIDS[_task] = {"ranks": _SEARCHED, "values": _SEARCHED, **GRIDS[_task]}


def problem_of(task: str, seed: int) -> Problem:
    """The problem of a task; the seed sets the initial point, or the split of the patients."""
    if task in ("scales", "boosting"):
        return LengthScales(split=seed) if task == "scales" else Boosting(split=seed)
    options: dict[str, Any] = {"dim": 20, "condition": 10.0} if task == "quadratic" else {"dim": 10}
    return load(task, **options)


def optimizer_of(method: str, model: torch.nn.Module, setting: list[float], seed: int) -> Optimizer:
    """Return the optimizer of a contestant with one of its settings."""
    if method == "mezo":
        return MeZO(model, lr=setting[0], eps=1e-4, seed=seed, engine="eager")
    make = {"ranks": RankSGD, "values": ValueSGD}[method]
    lr, mu = setting
    return make(
        model, lr=lr, mu=mu, points=POINTS, line_search=LINE_SEARCH, seed=seed, engine="eager"
    )


def run_task(
    task: str, method: str, setting: list[float], seed: int, budget: int
) -> dict[str, Any]:
    """Minimise with a fixed number of evaluations.

    Args:
        task: One of :data:`TASKS`.
        method: ``"ranks"``, ``"values"``, ``"mezo"`` or ``"cma"``.
        setting: One of the method's settings for the task.
        seed: Seed of the initial point or split, and of all directions.
        budget: Number of evaluations, or of ranked points.

    Returns:
        ``evaluations`` and ``best`` (lowest loss among the iterates so far, including the initial
        point), and for ``scales`` and ``boosting`` the ``test_ratio``, the final over the initial
        test error.
    """
    problem = problem_of(task, seed)
    model = problem.build(seed)
    before = problem.test(model)
    best = [problem.evaluate(model)["loss"]]

    def watch(step: int) -> None:
        loss = problem.evaluate(model)["loss"]
        best.append(min(best[-1], loss) if math.isfinite(loss) else best[-1])

    steps = budget // PER_STEP[method]
    if method == "cma":
        evolve(problem, model, setting[0], steps=steps, seed=seed, after=watch)
    else:
        optimizer = optimizer_of(method, model, setting, seed)
        descend(problem, model, optimizer, steps=steps, seed=seed, cosine=False, after=watch)
    result: dict[str, Any] = {
        "evaluations": [PER_STEP[method] * step for step in range(len(best))],
        "best": best,
    }
    after = problem.test(model)
    if before is not None and after is not None:
        result["test_ratio"] = after["loss"] / before["loss"]
    return result


def evolve(
    problem: Problem,
    model: torch.nn.Module,
    deviation: float,
    *,
    steps: int,
    seed: int,
    after: Callable[[int], None],
) -> None:
    """Minimise with CMA-ES of pycma, which is told the order of its points and nothing else.

    Args:
        problem: Provides the loss.
        model: The model, with one parameter; it holds the mean of the distribution.
        deviation: Initial standard deviation.
        steps: Number of generations of ``PER_STEP["cma"]`` evaluations.
        seed: Seed of the points.
        after: Called with the number of generations after each.
    """
    cma = require("cma", extra="blackbox")
    (x,) = model.parameters()
    options = {"popsize": PER_STEP["cma"], "seed": seed + 1, "verbose": -9}
    search: Any = cma.CMAEvolutionStrategy(x.tolist(), deviation, options)
    for step in range(steps):
        points, losses = search.ask(), list[float]()
        with torch.no_grad():
            for point in points:
                x.copy_(torch.as_tensor(point))
                losses.append(float(problem.loss(model, None)))
            search.tell(points, torch.tensor(losses).argsort().argsort().tolist())
            x.copy_(torch.as_tensor(search.mean))
        after(step + 1)


@cache
def tuned(
    task: str,
    method: str,
    grid: tuple[tuple[float, ...], ...],
    budget: int,
    seeds: int,
    tuning: int = 0,
) -> tuple[float, ...]:
    """The setting with the lowest mean logarithm of the loss over tuning seeds."""

    def score(setting: tuple[float, ...], seed: int) -> float:
        return math.log(run_task(task, method, list(setting), seed, budget)["best"][-1])

    return choose(grid, score, seeds, tuning=tuning)


def evaluations_to_the_same(first: dict[str, Any], second: dict[str, Any]) -> tuple[int, int]:
    """Evaluations until each run reaches the higher of the two final losses."""
    target = max(first["best"][-1], second["best"][-1])

    def reached(run: dict[str, Any]) -> int:
        pairs = zip(run["evaluations"], run["best"], strict=True)
        return next(count for count, loss in pairs if loss <= target)

    # If a run made no progress, one step is counted for both.
    return max(first["evaluations"][1], reached(first)), max(
        second["evaluations"][1], reached(second)
    )

"""Estimates of the time of runs, from warm steps of each method and from finished runs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyorder.compare.plan.entrants import Entrant
from anyorder.compare.plan.items import Item, Task
from anyorder.compare.plan.limits import Limits, seconds
from anyorder.compare.run.group import agreed
from anyorder.compare.run.runner import Training
from anyorder.oracle.ledger import BudgetExhausted
from anyorder.problems import Problem

if TYPE_CHECKING:
    from anyorder.compare.plan.settings import Settings

#: Minimum and maximum number of timed steps per method, and about how many seconds.
LEAST, MOST, PATIENCE = 3, 100, 0.5
#: Default time-out: this multiple of the estimate, at least this many seconds.
SLACK, SHORTEST = 20.0, 600.0


@dataclass
class Pace:
    """Speed of a method on a problem.

    Attributes:
        step_seconds: charged time of a warm step.
        step_forwards: cost of a step in forward passes.
        setup_seconds: time to create model and optimizer.
        evaluation_seconds: time of one evaluation.
    """

    step_seconds: float
    step_forwards: float
    setup_seconds: float
    evaluation_seconds: float

    def charged(self, limits: Limits) -> float:
        """Return the charged seconds until the first limit of the budget is reached."""
        steps = [math.inf if limits.steps is None else float(limits.steps)]
        if limits.forwards is not None and self.step_forwards:
            steps.append(math.ceil(limits.forwards / self.step_forwards))
        within = math.inf if limits.seconds is None else limits.seconds
        return min(within, min(steps) * self.step_seconds)


def pace(problem: Problem, entrant: Entrant, task: Task) -> Pace:
    """Time warm steps of one method, in a process that is warmed up for it.

    Args:
        problem: the problem.
        entrant: the method.
        task: a run of the method; its budget limits the steps.
    """
    training = Training(problem, entrant, task, lambda point: None)
    began = time.perf_counter()
    training.prepare()
    clock = training.clock
    setup = time.perf_counter() - began - clock.evaluation_seconds
    began, before = time.perf_counter(), clock.seconds
    try:
        while agreed(
            clock.steps < LEAST or (clock.steps < MOST and time.perf_counter() - began < PATIENCE)
        ):
            training.step()
    except BudgetExhausted:  # the budget is smaller than a few steps
        pass
    steps = max(1, clock.steps)
    return Pace(
        step_seconds=(clock.seconds - before) / steps,
        step_forwards=clock.calls.forwards(task.rates) / steps,
        setup_seconds=max(0.0, setup),
        evaluation_seconds=clock.evaluation_seconds,
    )


def run_seconds(pace: Pace, task: Task) -> float:
    """Return the estimated wall-clock seconds of one run."""
    evaluations = len(task.grid) + (not task.is_trial)  # and one on test data
    return pace.setup_seconds + pace.charged(task.limits) + evaluations * pace.evaluation_seconds


def timeout(settings: Settings, expected: float = 0.0) -> float:
    """Return the wall-clock seconds after which a run is killed."""
    if settings.timeout is not None:
        return seconds(settings.timeout)
    return max(SHORTEST, SLACK * expected)


class Forecast:
    """Remaining time of all runs, corrected by the times of finished runs.

    Args:
        expected: estimated seconds of each unfinished run.
        jobs: runs at a time.
    """

    def __init__(self, expected: Mapping[Item, float], jobs: int = 1) -> None:
        self._expected, self._jobs = dict(expected), jobs
        self._took: dict[str, tuple[float, float]] = {}

    def finished(self, item: Item, took: float | None) -> None:
        """Remove a run that took this many seconds; None if it was not needed."""
        expected = self._expected.pop(item, 0.0)
        if took is not None and expected > 0.0:
            before, of = self._took.get(item.method, (0.0, 0.0))
            self._took[item.method] = before + took, of + expected

    def left(self, runs: int | None = None) -> float:
        """Return the remaining seconds.

        Args:
            runs: number of unfinished runs, if other processes have finished some.
        """
        overall = _ratio(self._took.values())
        ratios = {method: _ratio([each]) for method, each in self._took.items()}
        whole = sum(e * ratios.get(item.method, overall) for item, e in self._expected.items())
        if runs is not None and self._expected:
            whole *= min(1.0, runs / len(self._expected))
        return whole / self._jobs


def _ratio(pairs: Iterable[tuple[float, float]]) -> float:
    """Return measured over expected seconds; 1 without data."""
    pairs = list(pairs)
    expected = sum(each for _, each in pairs)
    return sum(took for took, _ in pairs) / expected if expected else 1.0

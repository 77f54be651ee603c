"""How long runs will take: by warm steps of each method first, by finished runs as they come."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyorder.compare.plan.entrants import Entrant
from anyorder.compare.plan.items import Item, Task
from anyorder.compare.plan.limits import Limits, seconds
from anyorder.compare.run.runner import Training
from anyorder.oracle.ledger import BudgetExhausted
from anyorder.problems import Problem

if TYPE_CHECKING:
    from anyorder.compare.plan.settings import Settings

#: Warm steps of each method: at least and at most so many, for about so many seconds.
LEAST, MOST, PATIENCE = 3, 100, 0.5
#: A run is ended after so many times its estimate, but not before so many seconds.
SLACK, SHORTEST = 20.0, 600.0


@dataclass
class Pace:
    """How fast a method is on a problem.

    Attributes:
        step_seconds: charged time of a warm step.
        step_forwards: price of its answers in forward passes.
        setup_seconds: time to make model and optimizer.
        evaluation_seconds: time of one evaluation.
    """

    step_seconds: float
    step_forwards: float
    setup_seconds: float
    evaluation_seconds: float

    def charged(self, limits: Limits) -> float:
        """Charged seconds until the budget is used up, by the limit that comes first."""
        steps = [math.inf if limits.steps is None else float(limits.steps)]
        if limits.forwards is not None and self.step_forwards:
            steps.append(math.ceil(limits.forwards / self.step_forwards))
        within = math.inf if limits.seconds is None else limits.seconds
        return min(within, min(steps) * self.step_seconds)


def pace(problem: Problem, entrant: Entrant, task: Task) -> Pace:
    """Time warm steps of one method; the process has been warmed up for it.

    Args:
        problem: what is minimised.
        entrant: by what.
        task: a run of the method; its budget bounds the steps.
    """
    training = Training(problem, entrant, task, lambda point: None)
    began = time.perf_counter()
    training.prepare()
    clock = training.clock
    setup = time.perf_counter() - began - clock.evaluation_seconds
    began, before = time.perf_counter(), clock.seconds
    try:
        while clock.steps < LEAST or (
            clock.steps < MOST and time.perf_counter() - began < PATIENCE
        ):
            training.step()
    except BudgetExhausted:  # smaller than a few steps
        pass
    steps = max(1, clock.steps)
    return Pace(
        step_seconds=(clock.seconds - before) / steps,
        step_forwards=clock.calls.forwards(task.rates) / steps,
        setup_seconds=max(0.0, setup),
        evaluation_seconds=clock.evaluation_seconds,
    )


def run_seconds(pace: Pace, task: Task) -> float:
    """Wall-clock seconds of one run, by the pace of its method."""
    looks = len(task.grid) + (not task.is_trial)  # the test data too
    return pace.setup_seconds + pace.charged(task.limits) + looks * pace.evaluation_seconds


def timeout(settings: Settings, expected: float) -> float:
    """Wall-clock seconds after which a run is ended."""
    if settings.timeout is not None:
        return seconds(settings.timeout)
    return max(SHORTEST, SLACK * expected)


class Forecast:
    """Seconds until all runs are done, corrected by those that are finished.

    Args:
        expected: seconds of each run that is not done.
        jobs: runs at a time.
    """

    def __init__(self, expected: Mapping[Item, float], jobs: int = 1) -> None:
        self._expected, self._jobs = dict(expected), jobs
        self._took: dict[str, tuple[float, float]] = {}

    def finished(self, item: Item, took: float | None) -> None:
        """Take a run off; ``took`` is how many seconds it took, None if it was not needed."""
        expected = self._expected.pop(item, 0.0)
        if took is not None and expected > 0.0:
            before, of = self._took.get(item.method, (0.0, 0.0))
            self._took[item.method] = before + took, of + expected

    def left(self, runs: int | None = None) -> float:
        """Seconds until the end.

        Args:
            runs: how many are left, if other processes have finished some.
        """
        overall = _ratio(self._took.values())
        ratios = {method: _ratio([each]) for method, each in self._took.items()}
        whole = sum(e * ratios.get(item.method, overall) for item, e in self._expected.items())
        if runs is not None and self._expected:
            whole *= min(1.0, runs / len(self._expected))
        return whole / self._jobs


def _ratio(pairs: Iterable[tuple[float, float]]) -> float:
    """Seconds taken over seconds expected; 1 without any."""
    pairs = list(pairs)
    expected = sum(each for _, each in pairs)
    return sum(took for took, _ in pairs) / expected if expected else 1.0

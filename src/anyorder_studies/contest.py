"""Fair comparisons of methods: equal tuning budgets, and separate seeds for tuning."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from torch import nn

from anyorder import Optimizer
from anyorder.compare.plan.seeds import BLOCK, TUNING_SEED, report_seed
from anyorder.oracle.gradients import NonFiniteError
from anyorder.problems import Problem, load
from anyorder_studies.measurement import Measurement, StudyError, mean_interval, ratio_interval

T = TypeVar("T")

# Upper limit on the loss, also used for divergence, in nats: four times that of a random guess.
WORST = 4 * math.log(10.0)
_DIGITS_TRAIN = 1_197


def choose(
    grid: Sequence[T],
    score: Callable[[T, int], float],
    seeds: int,
    finalists: int | None = None,
    tuning: int = 0,
) -> T:
    """Return the setting with the smallest mean score over tuning seeds; the first one if tied.

    Args:
        grid: Settings to try. Use the same number for every method of a comparison.
        score: Returns the score of a setting with a seed; smaller is better, not finite is worst.
        seeds: Number of tuning seeds, see :func:`tuning_seeds`.
        finalists: Number of settings, the best with the first seed, to try with the other seeds
            (default: all).
        tuning: Number of the tuning, if methods are tuned several times.

    Raises:
        StudyError: If there are no settings or seeds, or no setting has finite scores.
    """
    if not grid or seeds < 1:
        raise StudyError(f"expected at least one setting and one seed, got {len(grid)} and {seeds}")
    first, *others = tuning_seeds(seeds, tuning)
    scores = [[_or_worst(score(setting, first))] for setting in grid]
    places = sorted(sorted(range(len(grid)), key=scores.__getitem__)[:finalists])
    for place in places:
        scores[place] += [_or_worst(score(grid[place], seed)) for seed in others]
    best = min(places, key=lambda place: sum(scores[place]))
    if sum(scores[best]) == math.inf:
        raise StudyError(f"no setting of {list(grid)} had finite scores: choose a wider grid")
    return grid[best]


def tuning_seeds(count: int, tuning: int = 0) -> list[int]:
    """Seeds of the trials of a tuning; its reported runs use the smaller seeds of its block.

    The blocks are those of comparisons: tuning ``t`` reports seeds from ``t * BLOCK`` on.
    """
    return [report_seed("", tuning, TUNING_SEED + number) for number in range(count)]


def tuning_of(seed: int) -> int:
    """The number of the tuning whose block contains the seed of a reported run."""
    return seed // BLOCK


def tuned_seeds(settings: Mapping[str, Any]) -> list[int]:
    """Seeds of all reported runs: ``settings["seeds"]`` for each of ``settings["tunings"]``."""
    tunings, seeds = range(settings.get("tunings", 1)), range(settings["seeds"])
    return [report_seed("", tuning, number) for tuning in tunings for number in seeds]


@dataclass(frozen=True)
class Repetitions:
    """Intervals over the independent repetitions of reported runs.

    Runs of one tuning share its choice. With several tunings, the mean of each is one repetition;
    with one, each run is, and a statement is about the tuned configuration only.

    Args:
        seeds: The seed of each reported run.
    """

    seeds: Sequence[int]

    def values(self, of_runs: Sequence[float]) -> list[float]:
        """One value per repetition, from one per run."""
        found: dict[int, list[float]] = {}
        for value, seed in zip(of_runs, self.seeds, strict=True):
            found.setdefault(tuning_of(seed), []).append(value)
        groups = list(found.values())
        return groups[0] if len(groups) == 1 else [sum(each) / len(each) for each in groups]

    def mean(self, of_runs: Sequence[float]) -> Measurement:
        """Mean with its interval."""
        return mean_interval(self.values(of_runs))

    def ratio(self, tops: Sequence[float], bottoms: Sequence[float]) -> Measurement:
        """Geometric mean of ratios, paired by run, with its interval."""
        logs = [
            math.log(ratio_interval([top], [bottom]).value)
            for top, bottom in zip(tops, bottoms, strict=True)
        ]
        values = [math.exp(each) for each in self.values(logs)]
        return ratio_interval(values, [1.0] * len(values))


def _or_worst(score: float) -> float:
    return score if math.isfinite(score) else math.inf


def descend(
    problem: Problem,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    steps: int,
    seed: int,
    cosine: bool = True,
    after: Callable[[int], None] | None = None,
) -> bool:
    """Train a model.

    Args:
        problem: Provides batches and losses.
        model: The model, trained in place.
        optimizer: The optimizer, with the initial learning rate.
        steps: Number of steps.
        seed: Seed of the batches.
        cosine: Decay the learning rate to zero along half a cosine.
        after: Called with the number of completed steps after each step.

    Returns:
        Whether training completed; ``False`` if a loss or gradient was not finite.
    """
    starts = [group["lr"] for group in optimizer.param_groups]
    for step in range(steps):
        if cosine:
            for group, start in zip(optimizer.param_groups, starts, strict=True):
                group["lr"] = start * 0.5 * (1.0 + math.cos(math.pi * step / steps))
        try:
            optimizer.step(problem.closure(model, problem.batch(seed, step)))
        except NonFiniteError:
            return False
        if after is not None:
            after(step + 1)
    return True


@cache
def all_digits() -> tuple[Problem, Any]:
    """Return the problem ``digits`` with full batches, and its batch."""
    problem = load("digits", batch_size=_DIGITS_TRAIN)
    return problem, problem.batch(0, 0)


def digits_training_loss(model: nn.Module) -> float:
    """Mean cross-entropy over all training digits in nats, at most :data:`WORST`."""
    problem, everything = all_digits()
    with torch.no_grad():
        loss = float(problem.loss(model, everything))
    return min(loss, WORST) if math.isfinite(loss) else WORST

"""Fair comparisons of methods: equal tuning budgets, and separate seeds for tuning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import torch
from torch import nn

from anyorder import Optimizer
from anyorder.compare.plan.seeds import TUNING_SEED
from anyorder.oracle.gradients import NonFiniteError
from anyorder.problems import Problem, load
from anyorder_studies.measurement import StudyError

T = TypeVar("T")

# Tuning uses the seeds from that of comparisons on; reported runs use seeds from 0.
FIRST_TUNING_SEED = TUNING_SEED
# Upper limit on the loss, also used for divergence, in nats: four times that of a random guess.
WORST = 4 * math.log(10.0)
_DIGITS_TRAIN = 1_197


def choose(
    grid: Sequence[T],
    score: Callable[[T, int], float],
    seeds: int,
    finalists: int | None = None,
) -> T:
    """Return the setting with the smallest mean score over tuning seeds; the first one if tied.

    Args:
        grid: Settings to try. Use the same number for every method of a comparison.
        score: Returns the score of a setting with a seed; smaller is better, not finite is worst.
        seeds: Number of tuning seeds, from :data:`FIRST_TUNING_SEED` on.
        finalists: Number of settings, the best with the first seed, to try with the other seeds
            (default: all).

    Raises:
        StudyError: If there are no settings or seeds, or no setting has finite scores.
    """
    if not grid or seeds < 1:
        raise StudyError(f"expected at least one setting and one seed, got {len(grid)} and {seeds}")
    first, *others = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + seeds)
    scores = [[_or_worst(score(setting, first))] for setting in grid]
    places = sorted(sorted(range(len(grid)), key=scores.__getitem__)[:finalists])
    for place in places:
        scores[place] += [_or_worst(score(grid[place], seed)) for seed in others]
    best = min(places, key=lambda place: sum(scores[place]))
    if sum(scores[best]) == math.inf:
        raise StudyError(f"no setting of {list(grid)} had finite scores: choose a wider grid")
    return grid[best]


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

"""Comparisons whose truth is known: laws, tunings and seeds, and what the referee says of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
from numpy.random import Generator

from anyorder.compare.stats.differences import (
    error_of_look,
    holm,
    paired_test,
    relabelling_test,
)
from anyorder.compare.stats.estimators import Floats

Law = Callable[[Generator, tuple[int, ...]], Floats]

#: Normal, skewed to either side and heavy-tailed laws, scaled to a middle spread of about 1.
LAWS: dict[str, Law] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "lognormal": lambda rng, shape: np.exp(rng.normal(size=shape)) - 1,
    "exponential": lambda rng, shape: rng.exponential(size=shape) - 1,
    "negative exponential": lambda rng, shape: 1 - rng.exponential(size=shape),
    "Student, 3": lambda rng, shape: rng.standard_t(3, size=shape),
    "Student, 2": lambda rng, shape: rng.standard_t(2, size=shape),
}


def comparisons(
    rng: Generator,
    law: Law,
    *,
    count: int,
    methods: int,
    tunings: int,
    seeds: int,
    trials: int = 8,
) -> Floats:
    """Values of all runs, shape ``(count, methods, tunings, seeds)``, of methods that are alike.

    Each tuning draws its trials, sees each with the noise of one seed, and chooses the best seen;
    the chosen one is then run with its seeds, which all methods share.
    """
    quality = 0.1 * law(rng, (count, methods, tunings, trials))
    seen = quality + 0.05 * law(rng, quality.shape)
    chosen = np.take_along_axis(quality, seen.argmin(-1)[..., None], axis=-1)
    shared = 0.05 * law(rng, (count, 1, tunings, seeds))
    return 1.0 + chosen + shared + 0.05 * law(rng, (count, methods, tunings, seeds))


def separated(values: Floats, look: int = 1) -> Floats:
    """Which pairs are separated, shape ``(count, pairs)``.

    Args:
        values: Shape ``(count, methods, tunings, seeds)``. With one tuning the seeds are paired.
        look: How often the data were looked at.
    """
    pairs = list(combinations(range(values.shape[1]), 2))
    if values.shape[2] == 1:
        p = [paired_test(values[:, a, 0] - values[:, b, 0]) for a, b in pairs]
    else:
        means = values.mean(-1)
        p = [relabelling_test(means[:, a], means[:, b]) for a, b in pairs]
    adjusted = np.asarray([holm(each) for each in np.stack(p, axis=-1).tolist()])
    return adjusted <= error_of_look(look) + 1e-12

"""The seed of every run: nothing that is chosen by one seed is reported with it."""

from __future__ import annotations

#: Trials of tuning t use seed 1000 + t. Reported runs use smaller ones in each block.
TUNING_SEED = 1000
#: Reported runs of tuning t use seeds t * BLOCK, t * BLOCK + 1, ...: more seeds renumber none.
BLOCK = 10_000
#: The twin of the baseline uses seeds of its own: all of its seeds are shifted by this.
TWIN_SHIFT = 500_000
#: What the name of a twin adds to that of its baseline.
TWIN = " (A/A)"
#: With more, seeds of a tuning would be those of the twin.
MAX_TUNINGS = TWIN_SHIFT // BLOCK


def trial_seed(method: str, tuning: int) -> int:
    """Seed of all trials of one tuning."""
    return _shift(method) + TUNING_SEED + tuning


def report_seed(method: str, tuning: int, number: int) -> int:
    """Seed of reported run ``number`` (0, 1, ...) of what a tuning chose."""
    return _shift(method) + tuning * BLOCK + number


def stream(method: str, tuning: int) -> int:
    """Number of the random stream that the trials of a tuning are drawn from."""
    return tuning + (MAX_TUNINGS if method.endswith(TWIN) else 0)


def _shift(method: str) -> int:
    return TWIN_SHIFT if method.endswith(TWIN) else 0

"""Check a stored result: run the same units again and hold them against its stated spread."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from anyorder_studies.harness import Progress, evaluate, run_units
from anyorder_studies.result import StudyResult
from anyorder_studies.study import Measurement, Study, StudyError

# Other processors round differently: a value without spread may move by this much, relatively.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Check:
    """One claim's quantity, stored and measured again.

    Args:
        quantity: The quantity.
        stored: What the stored result says.
        again: What the new run says.
        holds: Whether the new value lies in the stored interval.
    """

    quantity: str
    stored: Measurement
    again: Measurement
    holds: bool


def within(stored: Measurement, value: float) -> bool:
    """Whether ``value`` lies in the stored interval, widened by the rounding of processors."""
    slack = ROUNDING * max(abs(stored.value), abs(value))
    return stored.low - slack <= value <= stored.high + slack


def compare(study: Study, stored: StudyResult, again: StudyResult) -> list[Check]:
    """Hold a new result against a stored one, claim by claim.

    Raises:
        StudyError: If the stored result lacks a quantity that is claimed.
    """
    checks: list[Check] = []
    for quantity in dict.fromkeys(claim.quantity for claim in study.claims):
        if quantity not in stored.measurements:
            raise StudyError(
                f"{study.key}: the stored result does not hold {quantity!r}; store a new one"
            )
        before, now = stored.measurements[quantity], again.measurements[quantity]
        checks.append(Check(quantity, before, now, within(before, now.value)))
    return checks


def verify_study(
    study: type[Study],
    stored: StudyResult,
    folder: Path,
    *,
    progress: Progress | None = None,
) -> tuple[list[Check], StudyResult]:
    """Run a study again as its stored result was run, with as many threads too, and compare.

    The number of threads decides in which order sums are taken, so long trainings end elsewhere.

    Args:
        study: The study's class.
        stored: The stored result; its scale and number of seeds are used again.
        folder: Where the new run keeps its checkpoint; nothing there is reused.
        progress: Told after every unit.

    Returns:
        One check per claimed quantity, and the new result.
    """
    seeds = len(stored.seeds) if "seeds" in study.scales[stored.scale] else None
    subject = study(seeds=seeds)
    with _threads(int(stored.environment["threads"])):
        results, seconds = run_units(subject, stored.scale, folder, fresh=True, progress=progress)
        again = evaluate(subject, stored.scale, results, seconds)
    return compare(subject, stored, again), again


@contextmanager
def _threads(count: int) -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""Verifies a stored result: runs the same units again and compares them with its intervals."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from anyorder_studies.harness import Progress, evaluate, run_units
from anyorder_studies.result import StudyResult
from anyorder_studies.study import Measurement, Study, StudyError

# Rounding differs between processors: relative tolerance for values without an interval.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Check:
    """One claimed quantity, as stored and as measured again.

    Args:
        quantity: The quantity.
        stored: The stored measurement.
        again: The measurement of the new run.
        holds: Whether the new value is in the stored interval.
    """

    quantity: str
    stored: Measurement
    again: Measurement
    holds: bool


def within(stored: Measurement, value: float) -> bool:
    """Whether ``value`` is in the stored interval, up to rounding."""
    slack = ROUNDING * max(abs(stored.value), abs(value))
    return stored.low - slack <= value <= stored.high + slack


def compare(study: Study, stored: StudyResult, again: StudyResult) -> list[Check]:
    """Compare a new result with a stored one, claim by claim.

    Raises:
        StudyError: If the stored result lacks a claimed quantity.
    """
    checks: list[Check] = []
    for quantity in dict.fromkeys(claim.quantity for claim in study.claims):
        if quantity not in stored.measurements:
            raise StudyError(
                f"{study.key}: the stored result does not contain {quantity!r}; store a new one"
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
    """Run a study again with the settings and number of threads of its stored result, and compare.

    The number of threads determines the order of summation, which changes long training runs.

    Args:
        study: The study's class.
        stored: The stored result; its scale and number of seeds are used again.
        folder: Folder for the checkpoint of the new run; existing results are not reused.
        progress: Called after every unit.

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

"""Verifies a stored result: judges it again, measures it with fresh seeds, or repeats its run."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from anyorder.compare.plan.seeds import BLOCK
from anyorder_studies.harness import Progress, evaluate, judgement, run_units
from anyorder_studies.result import StudyResult
from anyorder_studies.study import Measurement, Status, Study, StudyError, Unit, Verdict

# Rounding differs between processors: relative tolerance for values without an interval.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Check:
    """One claim, as stored and now.

    Args:
        quantity: The claimed quantity.
        stored: The stored measurement.
        before: The stored status; ``None`` if the claim was not judged.
        now: The measurement of the new run, or again the stored one.
        status: The status of the study's claim for ``now``.
        holds: Whether the new value is in the stored interval.
    """

    quantity: str
    stored: Measurement
    before: Status | None
    now: Measurement
    status: Status
    holds: bool


@dataclass(frozen=True)
class Verification:
    """A stored verdict and the new one.

    Args:
        stored: The stored result.
        again: The result with the study's present claims, from the stored or new measurements.
        checks: One per claim.
    """

    stored: StudyResult
    again: StudyResult
    checks: list[Check]

    @property
    def verdicts(self) -> tuple[Verdict, Verdict]:
        """The stored verdict and the new one."""
        return self.stored.verdict, self.again.verdict

    @property
    def flips(self) -> bool:
        """Whether the two verdicts differ."""
        return self.stored.verdict is not self.again.verdict

    @property
    def repeats(self) -> bool:
        """Whether every new value is in the stored interval."""
        return all(check.holds for check in self.checks)


def rejudged(study: Study, stored: StudyResult) -> StudyResult:
    """Judge the study's present claims by the stored measurements; the hashes stay.

    Raises:
        StudyError: If the stored result lacks a claimed quantity.
    """
    missing = [c.quantity for c in study.claims if c.quantity not in stored.measurements]
    if missing:
        raise StudyError(
            f"{study.key}: the stored result does not contain {', '.join(map(repr, missing))}; "
            f"run the study again: anyorder study run {study.key}"
        )
    return replace(stored, **judgement(study, stored.measurements))


def compare(study: Study, stored: StudyResult, again: StudyResult) -> Verification:
    """Compare a result with a stored one, claim by claim.

    Raises:
        StudyError: If the stored result lacks a claimed quantity.
    """
    rejudged(study, stored)
    before = {claim.quantity: status for claim, status in stored.judged}
    checks = [
        Check(
            claim.quantity,
            old := stored.measurements[claim.quantity],
            before.get(claim.quantity),
            new := again.measurements[claim.quantity],
            status,
            within(old, new.value),
        )
        for claim, status in again.judged
    ]
    return Verification(stored, again, checks)


def within(stored: Measurement, value: float) -> bool:
    """Whether ``value`` is in the stored interval, up to rounding."""
    slack = ROUNDING * max(abs(stored.value), abs(value))
    return stored.low - slack <= value <= stored.high + slack


def judge_again(study: type[Study], stored: StudyResult) -> Verification:
    """Judge the study's claims by the stored measurements; nothing is run."""
    return compare(study(), stored, rejudged(study(), stored))


def run_again(
    study: type[Study],
    stored: StudyResult,
    folder: Path,
    *,
    scale: str | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
) -> Verification:
    """Run a study again with the number of threads of its stored result, and compare.

    The number of threads determines the order of summation, which changes long training runs.

    Args:
        study: The study's class.
        stored: The stored result.
        folder: Folder for the checkpoint of the new run; existing results are not reused.
        scale: Scale of the new run; ``None`` repeats scale and number of seeds of the stored one.
        fresh: Use seeds that the stored run has not used. Units without a seed are repeated.
        progress: Called after every unit.
    """
    scale = scale or stored.scale
    seeds = None
    if scale == stored.scale and "seeds" in study.scales[scale]:
        # A result of another number of tunings has other numbers of seeds: take the study's own.
        count, left = divmod(len(stored.seeds), study.scales[scale].get("tunings", 1))
        seeds = count if count and not left else None
    subject = (_fresh(study, stored.seeds) if fresh else study)(seeds=seeds)
    with _threads(int(stored.environment["threads"])):
        results, seconds = run_units(subject, scale, folder, fresh=True, progress=progress)
        again = evaluate(subject, scale, results, seconds)
    return compare(subject, stored, again)


def _fresh(study: type[Study], used: tuple[int, ...]) -> type[Study]:
    """The study with its seeds in blocks of seeds after those that were used."""
    shift = BLOCK * (1 + max(used, default=0) // BLOCK)

    def runs(self: Study, scale: str) -> Iterable[Unit]:
        for unit in study.runs(self, scale):
            yield {**unit, "seed": unit["seed"] + shift} if "seed" in unit else unit

    return type(study.__name__, (study,), {"runs": runs, "__module__": study.__module__})


@contextmanager
def _threads(count: int) -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

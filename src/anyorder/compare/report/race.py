"""The outcome of a race: the content of ``race.json``, and a summary as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anyorder.compare.report.formats import show, show_bytes, show_seconds

#: Version of the format of ``race.json``.
RACE_SCHEMA = 1


@dataclass(frozen=True)
class Tried:
    """One complete run of a candidate.

    Attributes:
        method: the method.
        config: hyper-parameters that differ from its defaults.
        status: ``done``, ``diverged`` or ``failed``.
        error: why it did not end as planned, else None.
        metric: validation metric at the end; None after a divergence.
        loss: validation loss at the end.
        spent: what it used of the budget, in the unit of the budget.
        seconds: charged seconds.
        peak_bytes: largest memory: of the process, or allocated on a GPU.
    """

    method: str
    config: dict[str, Any]
    status: str
    error: str | None
    metric: float | None
    loss: float | None
    spent: float
    seconds: float
    peak_bytes: int

    @property
    def name(self) -> str:
        """Method and settings."""
        return " ".join([self.method, *(f"{k}={v:.3g}" for k, v in self.config.items())])


@dataclass(frozen=True)
class Stage:
    """Runs of equal length, best first.

    Attributes:
        length: budget of each run, with its unit.
        runs: the candidates.
    """

    length: str
    runs: list[Tried]


@dataclass(frozen=True)
class Race:
    """The content of ``race.json``.

    Attributes:
        schema: version of the format.
        created_by: version of the library.
        command: command that repeats or continues it.
        problem: the problem.
        options: its options.
        metric: its metric.
        goal: whether the metric should be small or large.
        budget: total budget.
        seed: seed of initial point and batches.
        stages: the short runs.
        dropped: reasons why methods were dropped.
        length: budget of the last run, with its unit.
        winner: the last run, which trained the returned model.
        test: numbers on test data; None without test data.
        spent: what was used of the budget in all.
        total: the budget, in the same unit.
        unit: ``seconds`` of wall clock, ``forwards`` or ``steps``.
    """

    schema: int
    created_by: str
    command: str
    problem: str
    options: dict[str, Any]
    metric: str
    goal: str
    budget: str
    seed: int
    stages: list[Stage]
    dropped: dict[str, str]
    length: str
    winner: Tried
    test: dict[str, float | None] | None
    spent: float
    total: float
    unit: str


def text(found: Race) -> str:
    """The summary."""
    lines = [
        f"{found.problem}: {found.winner.name}, trained for {found.length} "
        f"of a total budget of {found.budget}",
        f"validation: {found.metric} {show(found.winner.metric)}, loss {show(found.winner.loss)}",
    ]
    if found.test is not None:
        numbers = ", ".join(f"{name} {show(value)}" for name, value in found.test.items())
        lines.append(f"test:       {numbers}")
    lines.append(
        f"memory:     {show_bytes(found.winner.peak_bytes or None)}; "
        f"spent: {_amount(found.spent, found.unit)}"
    )
    for number, stage in enumerate(found.stages, start=1):
        best = stage.runs[0]
        lines.append(
            f"stage {number}:    {len(stage.runs)} candidates x {stage.length}; "
            f"best: {best.name}, {found.metric} {show(best.metric)}"
        )
    lines += [f"dropped:    {name}: {why}" for name, why in found.dropped.items()]
    return "\n".join(lines) + "\n"


def _amount(value: float, unit: str) -> str:
    return show_seconds(value) if unit == "seconds" else f"{show(value)} {unit}"

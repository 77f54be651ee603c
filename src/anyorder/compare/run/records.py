"""What is measured: records that workers make, the storage keeps and reports are drawn from.

Plain dataclasses, so that a worker needs nothing but PyTorch to make them;
:mod:`anyorder.compare.store.schema` checks them when they are read back. ``docs/results.md`` says
in words what each field means. A number that is not finite is None: JSON has no other way to say
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from anyorder.compare.plan.items import Task
from anyorder.problems.check import Finding

Status = Literal["done", "diverged", "failed"]


@dataclass
class Costs:
    """Answers taken so far, by kind."""

    values: int
    grads: int
    products: int
    rankings: int
    ranked: int
    output_grads: int
    skipped: int
    bytes_sent: int


@dataclass
class Point:
    """One evaluation of a run: the cost so far and how good the model was."""

    fraction: float
    seconds: float
    forwards: float
    calls: Costs
    steps: int
    train_loss: float | None
    val_loss: float | None
    metric: float | None
    oracle_seconds: float
    optimizer_seconds: float
    data_seconds: float
    peak_bytes: int


@dataclass
class Final:
    """Validation numbers at the end of a run; None after a divergence."""

    loss: float | None
    metric: float | None


@dataclass
class RunRecord:
    """One training run with one configuration and one seed.

    Attributes:
        tuning: number of the tuning that chose the configuration; 0 for runs of the default.
        compile_seconds: time of compiling in the run; not charged, not part of any other time.
        warnings: unique texts of Python warnings raised in the run, at most 20.
        resampled: judged metric on resampled test sets; empty where the problem has no rows.
    """

    seed: int
    tuning: int
    config: dict[str, Any]
    start_hash: str
    status: Status
    stop_reason: Literal["budget", "diverged", "error", "crashed", "timeout"]
    error: str | None
    traceback: str | None
    curve: list[Point]
    final: Final
    test: dict[str, float | None] | None
    peak_bytes: int
    base_bytes: int
    state_bytes: int
    warmup_seconds: float
    evaluation_seconds: float
    compile_seconds: float
    warnings: list[str]
    resampled: list[float | None]


def failed_run(
    task: Task, error: str, traceback: str | None = None, *, crashed: bool = False
) -> RunRecord:
    """The record of a run that never got anywhere."""
    return RunRecord(
        seed=task.seed,
        tuning=task.item.tuning,
        config=task.config,
        start_hash="",
        status="failed",
        stop_reason="crashed" if crashed else "error",
        error=error,
        traceback=traceback,
        curve=[],
        final=Final(None, None),
        test=None,
        peak_bytes=0,
        base_bytes=0,
        state_bytes=0,
        warmup_seconds=0.0,
        evaluation_seconds=0.0,
        compile_seconds=0.0,
        warnings=[],
        resampled=[],
    )


@dataclass
class Described:
    """What a problem says of itself."""

    name: str
    spec: str
    options: dict[str, Any]
    metric: str
    goal: Literal["min", "max"]
    target: float | None
    optimum: float | None
    schedule: str


@dataclass
class Noise:
    """The loss at the start over batches."""

    batches: int
    mean: float
    std: float


@dataclass
class Cost:
    """What one answer takes."""

    seconds: float
    bytes: int


@dataclass
class Pilot:
    """What the pilot found before the first run.

    Attributes:
        parameters: trainable numbers in the model.
        findings: warnings of the check.
        deterministic: whether the same seed gives the same loss.
        noise: mean and standard deviation of the loss over batches.
        costs: of a ``value``, a ``gradient`` and, where there is one, a ``product``.
        second_derivative: None, or why there is none.
        in_parts: whether model outputs and criterion are given apart.
        evaluation_seconds: time of one evaluation.
        measured: exchange rates in forward passes; None for what could not be measured.
    """

    parameters: int
    findings: list[Finding]
    deterministic: bool
    noise: Noise
    costs: dict[str, Cost]
    second_derivative: str | None
    in_parts: bool
    evaluation_seconds: float
    measured: dict[str, float | None]

"""Records of measurements, created by workers, stored, and used by reports.

These are plain dataclasses, so that workers only need PyTorch;
:mod:`anyorder.compare.store.schema` validates them on reading. ``docs/results.md`` documents each
field. Non-finite numbers are None, because JSON has no representation for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from anyorder.compare.plan.items import Task
from anyorder.problems.check import Finding

Status = Literal["done", "diverged", "failed"]


@dataclass
class Costs:
    """Numbers of oracle calls so far, by kind."""

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
    """One evaluation of a run: the cost so far, and the validation results."""

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
    stop_reason: Literal["budget", "converged", "diverged", "error", "crashed", "timeout", "memory"]
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
    """Return the record of a run that failed before its first evaluation."""
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
    """The attributes of a problem.

    Attributes:
        parameters: number of trainable parameters; 0 if the model cannot be built.
        judged: whether it answers with rankings only.
    """

    name: str
    spec: str
    options: dict[str, Any]
    metric: str
    goal: Literal["min", "max"]
    target: float | None
    optimum: float | None
    schedule: str
    parameters: int = field(default=0, kw_only=True)
    judged: bool = field(default=False, kw_only=True)


@dataclass
class Noise:
    """Mean and spread of the initial loss over batches."""

    batches: int
    mean: float
    std: float


@dataclass
class Cost:
    """Time and memory of one answer."""

    seconds: float
    bytes: int


@dataclass
class Pilot:
    """Results of the pilot, measured before the first run.

    Attributes:
        parameters: number of trainable parameters (scalars).
        findings: warnings of the check.
        deterministic: whether the same seed gives the same loss.
        noise: mean and standard deviation of the loss over batches.
        costs: cost of a ``value``, a ``gradient`` and, if available, a ``product``.
        second_derivative: None, or the reason why it is not available.
        in_parts: whether the loss is composite: the problem defines outputs and criterion.
        evaluation_seconds: time of one evaluation.
        measured: exchange rates in forward passes; None if not measured.
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

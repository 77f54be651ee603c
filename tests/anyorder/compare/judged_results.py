"""Results that are judged by nothing but a loss per run, to test verdicts with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import example_results as example
from example_results import costs, point
from numpy.typing import ArrayLike

from anyorder.compare.run.records import Final, RunRecord
from anyorder.compare.store.schema import MethodRecord, Results


def run(seed: int, loss: float, metric: float | None = 0.5, **more: Any) -> RunRecord:
    """A run of 10 seconds whose metric rises linearly from 0; in the end it is minus the loss."""
    curve = [
        point(seconds=0.0, steps=0, forwards=0.0, fraction=0.0, metric=0.0, val_loss=1.0),
        point(
            seconds=10.0, steps=5, forwards=30.0, calls=costs(grads=10), metric=metric,
            val_loss=loss, oracle_seconds=6.0, optimizer_seconds=2.0,
        ),
    ]  # fmt: skip
    return example.run(seed, [], **{"curve": curve, "final": Final(loss, -loss), **more})


def method(name: str, losses: Sequence[float], **more: Any) -> MethodRecord:
    """A method with one tuning, and a loss per seed."""
    return example.method(name, [run(i, loss) for i, loss in enumerate(losses)], **more)


def tuned(name: str, losses: ArrayLike, shift: int = 0, **more: Any) -> MethodRecord:
    """A method with a loss per tuning and seed."""
    runs = [
        run(shift + 10_000 * tuning + seed, float(loss), tuning=tuning)
        for tuning, row in enumerate(losses)  # type: ignore[arg-type]
        for seed, loss in enumerate(row)  # type: ignore[arg-type]
    ]
    tunings = [example.tuned(index=i) for i in range(len(losses))]  # type: ignore[arg-type]
    return example.method(name, runs, **{"tunings": tunings, **more})


def results(*methods: MethodRecord, looks: int = 1, **problem: Any) -> Results:
    """A comparison of these methods with a budget of 10 seconds and without a target."""
    found = example.results(*methods, **{"budget": "10s", "target": None, **problem})
    found.plan = replace(found.plan, looks=looks)
    found.budget = {"seconds": 10.0}
    return found

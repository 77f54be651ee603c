"""Decisions of a race, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import example_results as example
import pytest

from anyorder.compare.plan.entrants import resolve_all
from anyorder.compare.racing.journal import Journal
from anyorder.compare.racing.request import RaceError, RaceRequest
from anyorder.compare.racing.track import Candidate, Track
from anyorder.compare.run.estimate import Pace
from anyorder.compare.run.records import Final, RunRecord


class FakePool:
    """Answers with runs that are best at a learning rate of 0.01; the metric is a distance."""

    def __init__(self, **ends: str) -> None:
        self.ends, self.tasks = ends, []

    def ask(self, job: str, subject: Any, *_: Any) -> Any:
        if job == "pace":
            return Pace(0.001, 3.0, 0.01, 0.002)
        task, keep = subject, subject.model
        self.tasks.append(task)
        rate = task.config.get("lr", 1e-3)
        forwards = task.limits.forwards or 0.0
        last = example.point(forwards=forwards, seconds=task.limits.seconds or 1.0, metric=1.0)
        distance = abs(rate - 0.01) + (0.001 if task.method.name == "lion" else 0.0)
        record: RunRecord = example.run(0, [], curve=[last], final=Final(distance, distance))
        if keep is not None:
            if self.ends.get(task.method.name) == "diverged":
                record.status, record.error = "diverged", "inf"  # type: ignore[assignment]
            else:
                keep.write_bytes(b"model")
        return record


def track(tmp_path: Path, pool: FakePool, **more: Any) -> Track:
    request = RaceRequest(
        "p", tmp_path, **{"budget": "10000grads", "methods": ("adamw", "lion"), **more}
    )
    entrants = resolve_all(request.methods, request.sets)
    described = example.facts(metric="loss").problem
    journal = Journal(tmp_path / "j", {})
    return Track(
        request, request.settings, described, entrants, journal, pool,  # type: ignore[arg-type]
        lambda: None, lambda line: None,
    )  # fmt: skip


def test_the_best_learning_rate_is_refined(tmp_path: Path) -> None:
    pool = FakePool()
    found = track(tmp_path, pool).run()
    assert found.winner.name == "adamw lr=0.01"
    rates = [sorted(run.config.get("lr", 1e-3) for run in stage.runs if run.method == "adamw")
             for stage in found.stages]  # fmt: skip
    assert rates[0] == [1e-4, 1e-3, 1e-2, 1e-1]
    assert {0.003162, 0.01, 0.03162} <= set(rates[1])
    assert [run.metric for run in found.stages[0].runs] == sorted(
        run.metric for run in found.stages[0].runs if run.metric is not None
    )


def test_the_whole_budget_is_used(tmp_path: Path) -> None:
    pool = FakePool()
    found = track(tmp_path, pool).run()
    assert found.spent == pytest.approx(found.total, abs=1)
    assert pool.tasks[-1].item.kind == "report"
    assert all(task.item.kind == "tune" for task in pool.tasks[:-1])


def test_if_the_winner_diverges_the_next_one_is_trained(tmp_path: Path) -> None:
    found = track(tmp_path, FakePool(adamw="diverged"), budget="60s").run()
    assert found.winner.method == "lion"


def test_if_no_budget_is_left_that_is_said(tmp_path: Path) -> None:
    pool = FakePool(adamw="diverged", lion="diverged")
    with pytest.raises(RaceError, match="no candidate could be trained for the rest"):
        track(tmp_path, pool).run()


def test_fewer_learning_rates_if_the_budget_is_small(tmp_path: Path) -> None:
    numbers = {}
    for name, budget in (("a", "10000grads"), ("b", "400grads"), ("c", "170grads")):
        (tmp_path / name).mkdir()
        candidates, length = track(tmp_path / name, FakePool(), budget=budget)._first()
        assert length >= 30
        numbers[name] = len(candidates)
    assert numbers == {"a": 8, "b": 4, "c": 2}


def test_a_method_without_a_learning_rate_is_one_candidate(tmp_path: Path) -> None:
    found, _ = track(tmp_path, FakePool(), sets=("lion.lr=0.1",))._first()
    assert [each for each in found if each.method == "lion"] == [Candidate("lion", None)]

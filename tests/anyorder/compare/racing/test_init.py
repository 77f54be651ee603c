"""Whole races, small ones."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

import anyorder.compare
from anyorder.compare import racing
from anyorder.compare.plan.plan import PlanError
from anyorder.compare.racing import model_of, race
from anyorder.compare.racing.request import RaceError
from anyorder.compare.run.pool import Pool
from anyorder.compare.scheduler import Interrupted
from anyorder.compare.store.storage import StorageError
from anyorder.problems import ProblemError, load
from anyorder.testing.elsewhere import processes

SMALL: dict[str, Any] = {"budget": "1600grads", "methods": ("adamw", "sgd"), "threads": 1}


@pytest.fixture(scope="module", autouse=True)
def _one_pool() -> Iterator[None]:
    """One worker for all races of this module, forked with PyTorch in memory."""

    class Lasting(Pool):
        def __exit__(self, *_: object) -> None:
            if not self.idle:
                self.close()  # interrupted in the middle of a run

    pool = Lasting(1, 1, os.devnull)
    pool._context = processes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(racing, "Pool", lambda size, threads, log: pool)
        yield
    pool.close()


def same(found: Any) -> dict[str, Any]:
    """The outcome without times, memory and folder."""

    def strip(tree: Any) -> Any:
        if isinstance(tree, dict):
            left = {"seconds", "peak_bytes", "command"}
            return {name: strip(part) for name, part in tree.items() if name not in left}
        return [strip(part) for part in tree] if isinstance(tree, list) else tree

    return strip(asdict(found))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    out = tmp_path_factory.mktemp("race") / "out"
    return race("digits", out=out, **SMALL), out


def test_the_model_is_the_one_that_was_judged(finished: Any) -> None:
    found, out = finished
    model = model_of(found, out)
    problem = load("digits")
    assert problem.evaluate(model)["accuracy"] == pytest.approx(found.winner.metric)
    assert problem.test(model) == pytest.approx(found.test)
    assert found.winner.metric > 0.9


def test_the_winner_gets_at_least_half_of_the_budget(finished: Any) -> None:
    found, _ = finished
    assert found.unit == "forwards"
    assert found.total == 4800
    assert found.winner.spent >= 0.5 * found.total
    spent = sum(run.spent for stage in found.stages for run in stage.runs) + found.winner.spent
    assert spent == found.spent <= found.total


def test_stages_get_longer_and_fewer(finished: Any) -> None:
    found, _ = finished
    lengths = [int(stage.length.removesuffix("forwards")) for stage in found.stages]
    assert lengths == sorted(lengths)
    assert len(found.stages) >= 2
    assert len(found.stages[0].runs) > len(found.stages[1].runs)
    # Every run went to the end of its schedule, and the best is first.
    for stage, length in zip(found.stages, lengths, strict=True):
        assert all(run.spent == length // 3 * 3 for run in stage.runs)
        assert [r.metric for r in stage.runs] == sorted(
            (r.metric for r in stage.runs), reverse=True
        )
    best = found.stages[-1].runs[0]
    assert (found.winner.method, found.winner.config) == (best.method, best.config)


def test_files(finished: Any) -> None:
    found, out = finished
    assert json.loads((out / "race.json").read_text()) == asdict(found)
    assert found.winner.name in (out / "race.txt").read_text()
    assert set(torch.load(out / "model.pt", weights_only=True)) == set(
        load("digits").build(0).state_dict()
    )


def test_the_same_command_again_runs_nothing(finished: Any) -> None:
    found, out = finished
    before = (out / "race.jsonl").read_bytes()
    assert same(race("digits", out=out, **SMALL)) == same(found)
    assert (out / "race.jsonl").read_bytes() == before


@pytest.mark.parametrize("runs", [3, pytest.param(12, marks=pytest.mark.slow)])
def test_an_interrupted_race_continues_to_the_same_end(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: int
) -> None:
    flag = threading.Event()
    told: list[str] = []

    @contextmanager
    def interruptible() -> Iterator[threading.Event]:
        yield flag

    def say(line: str) -> None:
        told.append(line)
        if sum(each.startswith("  ") for each in told) == runs:
            flag.set()

    with monkeypatch.context() as patch:
        patch.setattr(racing, "interrupts", interruptible)
        with pytest.raises(Interrupted, match="continue with: anyorder race digits"):
            race("digits", out=tmp_path, say=say, **SMALL)
    assert not (tmp_path / "race.json").exists()
    assert same(race("digits", out=tmp_path, **SMALL)) == same(finished[0])


def test_another_race_in_the_folder_is_refused(finished: Any) -> None:
    with pytest.raises(PlanError, match="differs in seed"):
        race("digits", out=finished[1], seed=1, **SMALL)


def test_two_races_at_once_in_a_folder(tmp_path: Path) -> None:
    """A second race that starts while the first one runs is refused and changes nothing."""
    refused: list[str] = []

    def say(line: str) -> None:
        with pytest.raises(StorageError, match="another race runs in") as error:
            race("quadratic", out=tmp_path, **small)
        refused.append(str(error.value))

    small = {**SMALL, "budget": "100grads", "methods": ("sgd",)}
    found = race("quadratic", out=tmp_path, say=say, **small)
    assert refused
    assert same(race("quadratic", out=tmp_path, **small)) == same(found)


def test_methods_that_need_too_much_memory_are_dropped(tmp_path: Path) -> None:
    with pytest.raises(
        RaceError, match=r"no candidate is left: .*peak memory of .* exceeds the limit of 1000 B"
    ):
        race("quadratic", out=tmp_path, memory=1000, **SMALL)


def test_a_method_that_fails_is_dropped(tmp_path: Path, method_file: Callable[..., str]) -> None:
    mine = method_file("raise RuntimeError('no step')")
    found = race("quadratic", out=tmp_path, **{**SMALL, "methods": ("sgd", mine)})
    assert found.winner.method == "sgd"
    assert "no step" in found.dropped[mine]


def test_a_fixed_learning_rate_is_not_varied(tmp_path: Path) -> None:
    found = race(
        "quadratic", out=tmp_path, sets=("adamw.lr=0.05",), **{**SMALL, "methods": ("adamw",)}
    )
    assert [len(stage.runs) for stage in found.stages] == [1]
    assert found.winner.config == {}


def test_a_budget_of_time(tmp_path: Path) -> None:
    found = race("quadratic", out=tmp_path, **{**SMALL, "budget": "3s"})
    assert found.unit == "seconds"
    assert found.winner.metric < 1
    assert (tmp_path / "model.pt").exists()


def test_a_budget_that_is_too_small(tmp_path: Path) -> None:
    with pytest.raises(RaceError, match="too small for 2 methods: write a budget of at least"):
        race("quadratic", out=tmp_path, **{**SMALL, "budget": "10grads"})


def test_a_problem_that_cannot_be_used(tmp_path: Path, problem_file: Callable[..., str]) -> None:
    with pytest.raises(ProblemError, match="unknown problem"):
        race("digit", out=tmp_path / "a", **SMALL)
    raising = problem_file("def loss(self, model, batch): raise ValueError('no loss')")
    with pytest.raises(ProblemError, match="no loss"):
        race(raising, out=tmp_path / "b", **SMALL)


def test_the_function_is_public() -> None:
    assert anyorder.compare.race is race
    with pytest.raises(AttributeError, match="no attribute 'racer'"):
        _ = anyorder.compare.racer

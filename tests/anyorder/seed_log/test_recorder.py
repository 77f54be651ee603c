"""Recording: bit-for-bit resumption, and what a log of moves cannot hold is refused."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from anyorder import SGD, AdamW, MeZO, RankSGD
from anyorder.seed_log import SeedLogError, fingerprint, read, record, replay, resume

Equal = Callable[[nn.Module, nn.Module], bool]
Runs = Any  # the class of conftest.py


def test_recording_changes_nothing(runs: Runs, equal: Equal, options: dict[str, Any]) -> None:
    _, recorded = runs.run(5, **options)
    model = runs.fresh()
    optimizer = MeZO(model, lr=0.05, **options)
    for step in range(5):
        optimizer.step(runs.closure(model, step))
    assert equal(model, recorded)
    assert optimizer.on_move is None


@pytest.mark.parametrize("cut", [0, 3])
def test_a_resumed_run_equals_an_uninterrupted_one(
    runs: Runs, equal: Equal, options: dict[str, Any], cut: int
) -> None:
    whole, trained = runs.run(6, "whole", **options)
    model, path = runs.fresh(), runs.folder / "part.seedlog"
    optimizer = MeZO(model, lr=0.05, **options)
    recorder = record(optimizer, path)
    for step in range(3):
        optimizer.step(runs.closure(model, step))
    del recorder  # as a killed process leaves it
    with path.open("ab") as file:
        file.truncate(path.stat().st_size - cut)  # the last step was written in part

    model = runs.fresh()
    optimizer = MeZO(model, lr=0.05, **options)
    with resume(optimizer, path) as again:
        assert optimizer.steps == (2 if cut else 3)
        assert (again.dropped > 0) == bool(cut)
        for step in range(optimizer.steps, 6):
            optimizer.step(runs.closure(model, step))
    assert equal(model, trained)
    assert path.read_bytes() == whole.read_bytes()
    assert optimizer.calls.values == 6 * 2 * options.get("directions", 1)


def test_a_finished_log_can_be_continued(runs: Runs, equal: Equal) -> None:
    whole, trained = runs.run(6, "whole")
    path, _ = runs.run(4, "part")
    model = runs.fresh()
    optimizer = MeZO(model, lr=0.05)
    with resume(optimizer, path):
        for step in range(4, 6):
            optimizer.step(runs.closure(model, step))
    assert equal(model, trained)
    assert path.read_bytes() == whole.read_bytes()


def test_skipped_steps_are_counted(runs: Runs, equal: Equal) -> None:
    """A loss that is NaN takes a step number and writes nothing."""

    def trained(stop: int) -> tuple[MeZO, nn.Module]:
        model = runs.fresh()
        return MeZO(model, lr=0.05, nonfinite="skip"), model

    def go(optimizer: MeZO, model: nn.Module, steps: range) -> None:
        for step in steps:
            closure = runs.closure(model, step)
            bad = step in (0, 2)
            optimizer.step(lambda c=closure, bad=bad: c() * (float("nan") if bad else 1.0))

    path, (optimizer, model) = runs.folder / "log", trained(6)
    with record(optimizer, path):
        go(optimizer, model, range(6))
    assert [step.number for step in read(path).steps] == [1, 3, 4, 5]
    again, other = trained(6)
    with resume(again, path):
        assert (again.steps, again.skips) == (4, 2)
        go(again, other, range(6, 8))
        go(optimizer, model, range(6, 8))
    assert equal(model, other)


def test_schedules_and_groups(runs: Runs, equal: Equal) -> None:
    model = runs.fresh()
    groups = [
        {"params": model[0].named_parameters(), "lr": 0.1},  # type: ignore[index]
        {"params": [(f"2.{n}", p) for n, p in model[2].named_parameters()], "weight_decay": 0.1},  # type: ignore[index]
    ]
    optimizer = MeZO([{**g, "params": list(g["params"])} for g in groups], lr=0.01)
    names = {n: p for g in optimizer.param_groups
             for n, p in zip(g["param_names"], g["params"], strict=True)}  # fmt: skip
    base = {name: param.detach().clone() for name, param in names.items()}
    path = runs.folder / "log"
    with record(optimizer, path):
        for step in range(4):
            for group in optimizer.param_groups:
                group["lr"] *= 0.9
            optimizer.step(runs.closure(model, step))
    replay(path, base)
    assert fingerprint(base) == fingerprint(names)


def test_frozen_parameters_are_left_alone(runs: Runs, equal: Equal) -> None:
    runs.base[0].requires_grad_(False)
    path, model = runs.run(3)
    again = runs.fresh()
    replay(path, again)
    assert equal(model, again)
    assert read(path).header.groups == (("2.weight", "2.bias"),)


def test_steps_survive_a_kill_at_once(runs: Runs) -> None:
    model = runs.fresh()
    optimizer = MeZO(model, lr=0.05)
    recorder = record(optimizer, runs.folder / "log")
    for step in range(3):
        optimizer.step(runs.closure(model, step))
        assert len(read(recorder.path).steps) == step + 1
    recorder.sync()
    recorder.detach()
    recorder.detach()
    recorder.close()
    assert read(recorder.path).digest is None
    optimizer.step(runs.closure(model, 3))
    assert len(read(recorder.path).steps) == 3


def test_an_exception_leaves_an_unfinished_log(runs: Runs) -> None:
    optimizer = MeZO(runs.fresh(), lr=0.05)
    with pytest.raises(KeyError), record(optimizer, runs.folder / "log"):
        raise KeyError
    assert read(runs.folder / "log").digest is None


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [SGD, AdamW, RankSGD])
def test_other_methods_are_refused(runs: Runs, method: Any) -> None:
    options = {"ranker": lambda shifts: [0]} if method is RankSGD else {}
    words = f"{method.__name__} needs .*"
    with pytest.raises(SeedLogError, match=words):
        record(method(runs.fresh(), **options), runs.folder / "log")
    assert not (runs.folder / "log").exists()


def test_runs_that_have_begun_are_refused(runs: Runs) -> None:
    path, model = runs.run(1)
    optimizer = MeZO(model)
    optimizer.step(runs.closure(model, 0))
    with pytest.raises(SeedLogError, match="has taken 1 steps; start the log before the first"):
        record(optimizer, runs.folder / "log")
    with pytest.raises(SeedLogError, match="has taken steps; make a new one on the base model"):
        resume(optimizer, path)
    with pytest.raises(SeedLogError, match="has `after`"):
        record(MeZO(model, after=lambda name, param: None), runs.folder / "log")
    optimizer = MeZO(model)
    with record(optimizer, runs.folder / "log"):
        with pytest.raises(SeedLogError, match="is recorded already"):
            record(optimizer, runs.folder / "other")
        with pytest.raises(SeedLogError, match="already exists"):
            record(MeZO(model), runs.folder / "log")


def test_resuming_on_another_model_is_refused(runs: Runs) -> None:
    path, model = runs.run(2)
    with pytest.raises(SeedLogError, match="the model is not the one that the log starts from"):
        resume(MeZO(model), path)
    frozen = runs.fresh()
    frozen[0].requires_grad_(False)  # type: ignore[index]
    with pytest.raises(SeedLogError, match="other parameters or other parameter groups"):
        resume(MeZO(frozen), path)


def test_other_changes_of_the_weights_are_found(runs: Runs) -> None:
    model = runs.fresh()
    optimizer = MeZO(model, lr=0.05)
    with pytest.raises(SeedLogError, match="something else has changed 2.bias"):  # noqa: SIM117
        with record(optimizer, runs.folder / "log"):
            optimizer.step(runs.closure(model, 0))
            with torch.no_grad():
                model[2].bias.add_(1e-3)  # type: ignore[index, union-attr]
            optimizer.step(runs.closure(model, 1))
    assert len(read(runs.folder / "log").steps) == 1


def test_buffers_that_change_are_found(runs: Runs) -> None:
    runs.base = nn.Sequential(*runs.base, nn.BatchNorm1d(3))
    with pytest.raises(SeedLogError, match=r"put these modules into evaluation mode with .eval"):
        runs.run(2)
    runs.base.eval()
    path, _ = runs.run(2, "evaluating")
    replay(path, runs.fresh())


def test_a_full_disk_is_named_and_leaves_whole_records(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = runs.fresh()
    optimizer = MeZO(model, lr=0.05)
    recorder = record(optimizer, runs.folder / "log")
    optimizer.step(runs.closure(model, 0))
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, content: write(file, content[:3]))
    with pytest.raises(SeedLogError, match="the disk is full"):
        optimizer.step(runs.closure(model, 1))
    monkeypatch.undo()
    recorder.detach()
    found = read(runs.folder / "log")
    assert len(found.steps) == 1 and not found.dropped


def test_copies_are_not_recorded(runs: Runs) -> None:
    model = runs.fresh()
    optimizer = MeZO(model, lr=0.05)
    with record(optimizer, runs.folder / "log"):
        other = copy.deepcopy(optimizer)
        assert other.on_move is None
        optimizer.step(runs.closure(model, 0))
        other.step(lambda: other.param_groups[0]["params"][0].square().sum())
    assert len(read(runs.folder / "log").steps) == 1


def test_a_folder_that_does_not_exist_is_made(runs: Runs, tmp_path: Path) -> None:
    record(MeZO(runs.fresh()), tmp_path / "new" / "log").detach()
    assert read(tmp_path / "new" / "log").steps == []

"""Suites: what they consist of, and small ones that are run."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import typer.main

from anyorder import methods, problems
from anyorder.command.suite import app
from anyorder.compare import session, suite
from anyorder.compare.run.pool import Pool
from anyorder.compare.scheduler import Interrupted
from anyorder.compare.store.storage import StorageError
from anyorder.compare.suite import (
    LEVELS,
    METHODS,
    PARTS,
    SuiteError,
    SuiteRequest,
    comparisons,
    failures,
    run_suite,
)
from anyorder.problems import ProblemError
from anyorder.testing.elsewhere import processes


@pytest.fixture(scope="module", autouse=True)
def _one_pool() -> Iterator[None]:
    """One worker for all comparisons of this module, forked with PyTorch in memory."""

    class Lasting(Pool):
        def __exit__(self, *_: object) -> None:
            assert self.idle == self.size

    pool = Lasting(1, 1, os.devnull)
    pool._context = processes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "Pool", lambda size, threads, log: pool)
        yield
    pool.close()


def tiny(out: Path, **changes: Any) -> SuiteRequest:
    wanted = {"methods": ("adamw", "sgd"), "problems": ("digits", "cancer"), "budget": "20grads"}
    return SuiteRequest("quick", out, threads=1, **{**wanted, **changes})


def test_every_problem_exists_and_has_a_comparison_at_every_level() -> None:
    assert {part.problem for part in PARTS} <= set(problems.names())
    assert len({part.problem for part in PARTS}) == len(PARTS) == 10
    assert set(METHODS) <= set(methods.names())
    for level in LEVELS:
        found = comparisons(SuiteRequest(level, Path("o"), jobs=2))
        for name, (part, request) in found.items():
            assert problems.load(name, **part.options).name == name
            assert request.settings.jobs == 2
            assert request.out == Path("o") / name
    quick = comparisons(SuiteRequest("quick", Path("o")))["digits"][1].settings
    verdict = comparisons(SuiteRequest("verdict", Path("o")))["digits"][1].settings
    assert quick.tune == 0
    assert verdict.tunings >= 5  # statements about methods, and enough for a test


def test_two_suites_at_once_in_a_folder(tmp_path: Path) -> None:
    refused: list[str] = []

    def say(line: str) -> None:
        with pytest.raises(StorageError, match="another suite runs in") as error:
            run_suite(tiny(tmp_path, methods=("adamw",)))
        refused.append(str(error.value))

    request = tiny(tmp_path, methods=("sgd",), problems=("cancer",), budget="3grads")
    assert list(run_suite(request, say=say).methods) == ["sgd"]
    assert refused


@pytest.mark.slow
def test_a_whole_suite(tmp_path: Path) -> None:
    said: list[str] = []
    found = run_suite(tiny(tmp_path), say=said.append)
    assert [each.problem for each in found.problems] == ["cancer", "digits"]
    assert said == ["[1/2] cancer: table, convex", "[2/2] digits: images"]
    assert json.loads((tmp_path / "suite.json").read_text()) == asdict(found)
    for name in ("suite.md", "suite.html", "digits/report.html", "cancer/results.json"):
        assert (tmp_path / name).stat().st_size > 500
    assert failures(found) == []
    assert str(tmp_path) not in (tmp_path / "suite.json").read_text()


def test_the_same_command_again_runs_nothing(tmp_path: Path) -> None:
    request = tiny(tmp_path, problems=("cancer",))
    found = run_suite(request)
    notes = [(path, path.read_bytes()) for path in sorted((tmp_path / "cancer/runs").iterdir())]
    assert notes
    assert replace(run_suite(request), created=found.created) == found
    assert [(path, path.read_bytes()) for path, _ in notes] == notes


def test_a_problem_without_data_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(request: Any, progress: Any) -> Any:
        raise ProblemError(f"{request.settings.problem} has no data\nmore")

    monkeypatch.setattr(suite, "compare", compare)
    with pytest.raises(
        ProblemError, match=r"no problem .* can be used: cancer has no data; digits"
    ):
        run_suite(tiny(tmp_path))


def test_the_other_problems_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = suite.compare

    def compare(request: Any, progress: Any) -> Any:
        if request.settings.problem == "spam":
            raise ProblemError("no data")
        return whole(request, progress)

    monkeypatch.setattr(suite, "compare", compare)
    found = run_suite(tiny(tmp_path, problems=("digits", "spam")))
    assert found.left_out == {"spam": "no data"}
    assert [each.problem for each in found.problems] == ["digits"]


def test_an_interrupted_suite_says_how_to_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(request: Any, progress: Any) -> Any:
        raise Interrupted("anyorder compare digits ...")

    monkeypatch.setattr(suite, "compare", compare)
    with pytest.raises(
        Interrupted, match="continue with: anyorder suite quick --methods adamw,sgd"
    ):
        run_suite(tiny(tmp_path))


def test_the_command_is_the_request(tmp_path: Path) -> None:
    words = shlex.split(tiny(tmp_path, jobs=2).command)
    context = typer.main.get_command(app).make_context("suite", words[2:])
    assert context.params == {
        "level": "quick", "methods": "adamw,sgd", "problems": "digits,cancer",
        "budget": "20grads", "jobs": 2, "threads": 1, "out": tmp_path, "as_json": False,
    }  # fmt: skip


def test_unknown_names_are_refused() -> None:
    with pytest.raises(SuiteError, match="unknown suite 'quik'; did you mean 'quick'"):
        SuiteRequest("quik", Path("o"))
    with pytest.raises(SuiteError, match="unknown problem of the suite 'rosenbrock'"):
        SuiteRequest("quick", Path("o"), problems=("rosenbrock",))

"""The command: what it prints, what it refuses, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import anyorder
from anyorder import methods
from anyorder.command import cli
from anyorder.compare.store import results

SRC = Path(anyorder.__file__).parents[1]

PROBLEM = """
import torch
from torch import nn
from anyorder.problems import Problem


class Line(Problem):
    def build(self, seed):
        model = nn.Linear(3, 1)
        with torch.no_grad():
            model.weight.copy_(torch.arange(3.0) + seed % 10)
            model.bias.zero_()
        return model

    def batch(self, seed, step):
        return torch.randn(8, 3, generator=torch.Generator().manual_seed(1000 * seed + step))

    def loss(self, model, batch):
        {loss}

    def evaluate(self, model):
        with torch.no_grad():
            return {{"loss": model(torch.eye(3)).square().mean().item()}}
"""
GOOD = "return model(batch).square().mean()"
TINY = (
    "--budget",
    "10grads",
    "--tune",
    "0",
    "--seeds",
    "1",
    "--threads",
    "1",
    "--evaluations",
    "2",
)


class Answer:
    """Exit code and output of one call."""

    def __init__(self, found: Any) -> None:
        self.code, self.out, self.err = found.exit_code, found.stdout, found.stderr


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Answer]:
    """Call the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    return lambda *words: Answer(CliRunner().invoke(cli.app, [str(word) for word in words]))


@pytest.fixture
def problem(tmp_path: Path) -> Callable[..., Path]:
    def write(loss: str = GOOD, text: str = PROBLEM) -> Path:
        path = tmp_path / "line.py"
        path.write_text(text.format(loss=loss.replace("\n", "\n        ")))
        return path

    return write


# --- Looking things up -------------------------------------------------------------------------


def test_help_names_all_commands_and_exit_codes(call: Callable[..., Answer]) -> None:
    found = call("--help")
    assert found.code == 0
    for word in ("list", "show", "problems", "check", "compare", "new", "Exit codes", "130"):
        assert word in found.out


def test_version(call: Callable[..., Answer]) -> None:
    assert call("--version").out.strip() == f"anyorder {anyorder.__version__}"


def test_list(call: Callable[..., Answer]) -> None:
    assert "adahessian" in call("list").out
    assert [row["name"] for row in json.loads(call("list", "--json").out)] == methods.names()


def test_show(call: Callable[..., Answer]) -> None:
    text = call("show", "rank-sgd").out
    for part in (
        "RankSGD",
        "order rank, asks for rank",
        "line_search",
        "rank_sgd.py",
        "2303.03751",
    ):
        assert part in text
    assert json.loads(call("show", "adamw", "--json").out)["options"][0]["name"] == "lr"
    found = call("show", "adamv")
    assert (found.code, found.out) == (2, "")
    assert "error: there is no method 'adamv'. Did you mean 'adamw'" in found.err
    assert "Traceback" not in found.err


def test_problems(call: Callable[..., Answer]) -> None:
    assert "stdlib-lm" in call("problems").out
    assert {row["name"] for row in json.loads(call("problems", "--json").out)} >= {
        "digits",
        "cancer",
    }


def test_new_method(call: Callable[..., Answer], tmp_path: Path) -> None:
    found = call("new", "method", "mine", "--into", "there")
    assert found.code == 0
    assert "anyorder compare digits --methods adamw,there/mine.py" in found.out
    assert (tmp_path / "there" / "test_mine.py").exists()
    assert call("new", "method", "mine", "--into", "there").code == 2


def test_debug_shows_the_traceback(call: Callable[..., Answer]) -> None:
    found = CliRunner().invoke(cli.app, ["--debug", "show", "adamv"])
    assert type(found.exception).__name__ == "UnknownMethodError"


def test_a_bug_is_called_a_bug(
    call: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    from anyorder.command import catalogue

    monkeypatch.setattr(catalogue, "methods", lambda: 1 / 0)
    found = call("list")
    assert found.code == 70
    assert "This is a bug in anyorder: ZeroDivisionError" in found.err


def test_nothing_heavy_is_imported_for_help() -> None:
    script = (
        "import sys; before = set(sys.modules); import anyorder; base = set(sys.modules)\n"
        "import anyorder.command.cli\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - base}\n"
        "print(*sorted(new & {'torch', 'numpy', 'optuna', 'scipy', 'sqlalchemy', 'plotly'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(SRC)},
    )
    assert done.stdout.strip() == ""


# --- Problems ----------------------------------------------------------------------------------


def test_check_of_a_good_problem(call: Callable[..., Answer], problem: Callable[..., Path]) -> None:
    found = call("check", problem())
    assert found.code == 0
    assert "Line: no errors" in found.out
    assert "one answer costs" in found.out
    content = json.loads(call("check", problem(), "--json").out)
    assert content["ok"]
    assert content["measured"]["grads"] > 0


BAD_PROBLEMS = [
    ("return model(batch).square().mean() * float('nan')", "is nan at the start"),
    ("loss = model(batch).square().mean()\nloss.backward()\nreturn loss", "calls backward itself"),
    ("return model(batch).square()", "returned a tensor of shape (8, 1)"),
    (
        "self.n = getattr(self, 'n', 0) + 1\nreturn model(self.batch(0, self.n)).square().mean()",
        "two evaluations of the same model and batch differ",
    ),
    ("return model(batch).square().mean().item()", "returned a value of type float"),
]


@pytest.mark.parametrize(("loss", "says"), BAD_PROBLEMS)
def test_bad_problems_are_refused(
    call: Callable[..., Answer], problem: Callable[..., Path], loss: str, says: str
) -> None:
    found = call("check", problem(loss))
    assert found.code == 3
    assert says in found.out
    assert f"{problem(loss)}:" in found.out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("class Line(Problem:\n", "line 1, is not valid Python"),
        ("x = 3\n", "defines no problem"),
        ("import no_such_module_there\n", "No module named 'no_such_module_there'"),
        ("raise SystemExit(5)\n", "SystemExit"),
    ],
)
def test_files_without_a_problem(
    call: Callable[..., Answer], problem: Callable[..., Path], text: str, says: str
) -> None:
    path = problem(text=text)
    found = call("check", path)
    assert found.code == 3
    assert says in found.err
    assert "Traceback" not in found.err


def test_a_missing_problem(call: Callable[..., Answer]) -> None:
    found = call("check", "digit")
    assert found.code == 3
    assert "did you mean 'digits'" in found.err


def test_options_of_problems(call: Callable[..., Answer]) -> None:
    assert call("check", "rosenbrock", "-o", "dim=3").code == 0
    assert call("check", "rosenbrock", "-o", "dim=1").code == 3
    found = call("check", "rosenbrock", "-o", "dim")
    assert found.code == 2
    assert "expected NAME=VALUE" in found.err


# --- Comparing ---------------------------------------------------------------------------------


def test_a_comparison_in_which_a_method_fails(call: Callable[..., Answer], tmp_path: Path) -> None:
    words = ("digits", "--methods", "torch.optim:Muon,sgd", *TINY)
    found = call("compare", *words)
    assert found.code == 1
    for part in (
        "torch.optim:Muon: failed: ValueError at ",
        "Muon only supports 2D parameters",
        "[2/2] report 0  sgd: loss ",
        "final loss",
        "10 grads",
        "report.html",
    ):
        assert part in found.out
    folder = tmp_path / "comparisons" / "digits-10grads"
    assert (folder / "report.html").stat().st_size > 1000
    content = results.load(folder / "results.json")
    assert [method["failed"] is None for method in content["methods"]] == [False, True]
    again = call("compare", *words, "--json")
    answer = json.loads(again.out)
    assert again.code == 1
    assert answer["results"] == "comparisons/digits-10grads/results.json"
    assert {row["name"] for row in answer["methods"]} == {"sgd", "torch.optim:Muon"}
    other = call("compare", "digits", "--methods", "lion", *TINY)
    assert other.code == 2
    assert "does not include method lion" in other.err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["digits", "--methods", "adamv"], 2, "Did you mean 'adamw'"),
        (["digits", "--methods", "adamw", "--set", "adamw.lrr=1"], 2, "Did you mean 'lr'"),
        (["digits", "--budget", "soon"], 2, "cannot read the budget 'soon'"),
        (["digits", "--budget", "9rankings"], 2, "a ranking has no price"),
        (["digits", "--tune", "-1"], 2, "tune: expected at least 0"),
        (["digits", "--storage", "oracle://x/y"], 4, "use sqlite or postgresql"),
        (["nothing.py"], 3, "does not exist"),
        (["digits", "-o", "batchsize=3"], 3, "unknown option 'batchsize'"),
        (["digits", "--out", "/proc/nowhere"], 4, "cannot write into /proc/nowhere"),
        (["digits", "--jobs", "many"], 2, "Invalid value for '--jobs'"),
    ],
)
def test_what_is_refused(
    call: Callable[..., Answer], words: list[str], code: int, says: str
) -> None:
    found = call("compare", *words)
    assert (found.code, says in found.err) == (code, True), found.err
    assert "Traceback" not in found.err


def test_a_damaged_database(call: Callable[..., Answer], tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "compare.db").write_bytes(b"rubbish" * 999)
    found = call("compare", "quadratic", "--methods", "sgd", *TINY, "--out", "o")
    assert found.code == 4
    assert "compare.db is damaged" in found.err


# --- In a process of its own -------------------------------------------------------------------


def start(folder: Path, *words: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "anyorder.command.cli",
            "compare",
            "digits",
            "--methods",
            "sgd",
            *words,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SRC), "COLUMNS": "200", "NO_COLOR": "1"},
        start_new_session=True,
        **options,
    )


def test_ctrl_c_stores_says_how_to_go_on_and_goes(tmp_path: Path) -> None:
    words = ("--budget", "2s", "--tune", "0", "--seeds", "9", "--threads", "1", "--out", "o")
    process = start(tmp_path, *words)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("[1/9]"):
        assert process.poll() is None
    time.sleep(0.3)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - began < 20
    assert "1 of 9 runs are finished and kept" in err
    assert "go on with: anyorder compare digits --methods sgd --budget 2s" in err
    assert "Traceback" not in err
    assert not (tmp_path / "o" / "results.json").exists()


def test_a_disk_that_fills_up_stops_the_work_and_can_be_resumed(
    tmp_path: Path, call: Callable[..., Answer]
) -> None:
    import resource

    def small_disk() -> None:  # writes that make a file longer than this fail, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, 80_000))

    words = ("--budget", "60grads", "--tune", "0", "--seeds", "8", "--threads", "1", "--out", "o")
    process = start(tmp_path, *words, preexec_fn=small_disk)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 4, out + err
    assert "finished runs are kept" in err
    assert "Traceback" not in err
    done = sum(line.startswith("[") for line in out.splitlines())
    assert 0 < done < 8
    found = call("compare", "digits", "--methods", "sgd", *words)
    assert found.code == 0
    assert f"8 runs, {done} of them done before" in found.out

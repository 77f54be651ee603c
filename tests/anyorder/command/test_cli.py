"""The command: what it prints, what it refuses, and its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import anyorder
from anyorder import methods
from anyorder.command import cli

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


@pytest.fixture
def problem(tmp_path: Path) -> Callable[..., Path]:
    def write(loss: str = GOOD, text: str = PROBLEM) -> Path:
        path = tmp_path / "line.py"
        path.write_text(text.format(loss=loss.replace("\n", "\n        ")))
        return path

    return write


# --- Looking things up -------------------------------------------------------------------------


def test_help_names_all_commands_and_exit_codes(call: Callable[..., Any]) -> None:
    found = call("--help")
    assert found.code == 0
    for word in ("list", "show", "problems", "check", "compare", "new", "Exit codes", "130"):
        assert word in found.out


def test_version(call: Callable[..., Any]) -> None:
    assert call("--version").out.strip() == f"anyorder {anyorder.__version__}"


def test_list(call: Callable[..., Any]) -> None:
    assert "adahessian" in call("list").out
    assert [row["name"] for row in json.loads(call("list", "--json").out)] == methods.names()


def test_show(call: Callable[..., Any]) -> None:
    text = call("show", "rank-sgd").out
    for part in (
        "RankSGD",
        "order rank, needs rank",
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


def test_problems(call: Callable[..., Any]) -> None:
    assert "stdlib-lm" in call("problems").out
    assert {row["name"] for row in json.loads(call("problems", "--json").out)} >= {
        "digits",
        "cancer",
    }


def test_new_method(call: Callable[..., Any], tmp_path: Path) -> None:
    found = call("new", "method", "mine", "--into", "there")
    assert found.code == 0
    assert "anyorder compare digits --methods adamw,there/mine.py" in found.out
    assert (tmp_path / "there" / "test_mine.py").exists()
    assert call("new", "method", "mine", "--into", "there").code == 2


def test_debug_shows_the_traceback(call: Callable[..., Any]) -> None:
    found = CliRunner().invoke(cli.app, ["--debug", "show", "adamv"])
    assert type(found.exception).__name__ == "UnknownMethodError"


def test_a_bug_is_called_a_bug(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
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
        "heavy = 'torch numpy optuna scipy sqlalchemy plotly pydantic'.split()\n"
        "print(*sorted(new & set(heavy)))"
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


def test_check_of_a_good_problem(call: Callable[..., Any], problem: Callable[..., Path]) -> None:
    found = call("check", problem())
    assert found.code == 0
    assert "Line: no errors" in found.out
    assert "one answer costs" in found.out
    content = json.loads(call("check", problem(), "--json").out)
    assert content["ok"]
    assert content["measured"]["grads"] > 0


BAD_PROBLEMS = [
    ("return model(batch).square().mean() * float('nan')", "is nan at the initial point"),
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
    call: Callable[..., Any], problem: Callable[..., Path], loss: str, says: str
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
    call: Callable[..., Any], problem: Callable[..., Path], text: str, says: str
) -> None:
    path = problem(text=text)
    found = call("check", path)
    assert found.code == 3
    assert says in found.err
    assert "Traceback" not in found.err


def test_a_missing_problem(call: Callable[..., Any]) -> None:
    found = call("check", "digit")
    assert found.code == 3
    assert "did you mean 'digits'" in found.err


def test_options_of_problems(call: Callable[..., Any]) -> None:
    assert call("check", "rosenbrock", "-o", "dim=3").code == 0
    assert call("check", "rosenbrock", "-o", "dim=1").code == 3
    found = call("check", "rosenbrock", "-o", "dim")
    assert found.code == 2
    assert "expected NAME=VALUE" in found.err

"""The command ``anyorder compare``: its options, what it prints and refuses, its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import anyorder
from anyorder.command.compare import options_of_settings
from anyorder.compare.plan.settings import Settings
from anyorder.compare.run import pool
from anyorder.compare.store import results
from anyorder.testing.elsewhere import processes

SRC = Path(anyorder.__file__).parents[1]
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
    "--no-twin",
    "--no-defaults",
)


@pytest.fixture(autouse=True)
def _forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of comparisons in this process begin with PyTorch in memory."""
    monkeypatch.setattr(pool, "multiprocessing", SimpleNamespace(get_context=lambda _: processes()))


def test_every_setting_has_an_option_with_its_default(call: Callable[..., Any]) -> None:
    options = {each.name: each.default for each in options_of_settings()}
    usual = Settings("p")
    assert options == {
        each.name: getattr(usual, each.name)
        for each in fields(Settings)
        if each.name not in ("problem", "options")
    }
    text = call("compare", "--help").out
    flags = [name.replace("_", "-") for name in options]
    for name in (*flags, "methods", "set", "space", "option", "out", "storage", "extend", "json"):
        assert f"--{name} " in text
    assert "Tuning sampler: qmc, random or tpe." in text
    page = (SRC.parent / "docs" / "cli.md").read_text(encoding="utf-8")
    assert [name for name in flags if f"| `--{name}" not in page] == []


def test_a_comparison_in_which_a_method_fails(call: Callable[..., Any], tmp_path: Path) -> None:
    words = ("digits", "--methods", "torch.optim:Muon,sgd", *TINY)
    found = call("compare", *words)
    assert found.code == 1
    for part in (
        "torch.optim:Muon: failed: ValueError at ",
        "Muon only supports 2D parameters",
        "[2/2] report 0  sgd: loss ",
        "accuracy",
        "10 grads",
        "report.html",
    ):
        assert part in found.out
    folder = tmp_path / "comparisons" / "digits-10grads"
    assert (folder / "report.html").stat().st_size > 1000
    content = results.load(folder / "results.json")
    assert [method.failed is None for method in content.methods] == [False, True]
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
        (["digits", "--budget", "9rankings"], 2, "rankings have no fixed price"),
        (["digits", "--budget", "9output_grads"], 2, "output_grads have no fixed price"),
        (["digits", "--budget", "9targets"], 2, "cannot read the budget '9targets'"),
        (["digits", "--methods", "torch.optim:Adm,no.such:Y"], 2, "Did you mean 'Adam'"),
        (["digits", "--baseline", "adam"], 2, "the baseline 'adam' is not one of the methods"),
        (["digits", "--space", "adamw.lr=1..2"], 2, "range of adamw.lr: expected log:LOW..HIGH"),
        (["digits", "--timeout", "soon"], 2, "timeout: cannot read"),
        (["digits", "--tune", "-1"], 2, "tune: expected at least 0"),
        (["digits", "--storage", "oracle://x/y"], 4, "use sqlite or postgresql"),
        (["nothing.py"], 3, "does not exist"),
        (["digits", "-o", "batchsize=3"], 3, "unknown option 'batchsize'"),
        (["digits", "-o", "batch_size=[3]"], 3, "must be an integer of at least 1; got [3]"),
        (["digits", "--out", "/proc/nowhere"], 4, "cannot write into /proc/nowhere"),
        (["digits", "--jobs", "many"], 2, "Invalid value for '--jobs'"),
        (["digits", "--schedule", "steps"], 2, "schedule: expected 'constant' or 'cosine'"),
    ],
)
def test_what_is_refused(call: Callable[..., Any], words: list[str], code: int, says: str) -> None:
    found = call("compare", *words)
    assert (found.code, says in found.err) == (code, True), found.err
    assert "Traceback" not in found.err


def test_a_damaged_database(call: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "compare.db").write_bytes(b"rubbish" * 999)
    found = call("compare", "quadratic", "--methods", "sgd", *TINY, "--out", "o")
    assert found.code == 4
    assert "compare.db is damaged" in found.err


@pytest.mark.slow
def test_a_disk_that_fills_up_stops_the_work_and_can_be_resumed(call: Callable[..., Any]) -> None:
    import resource

    words = (
        "--budget", "60grads", "--tune", "0", "--seeds", "8", "--threads", "1", "--out", "o",
        "--no-twin", "--no-defaults",
    )  # fmt: skip
    processes()  # what it starts for all tests has no limit
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Writes that make a file longer than this fail, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, hard))
    try:
        full = call("compare", "digits", "--methods", "sgd", *words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert full.code == 4, full.out + full.err
    assert "finished runs are kept" in full.err
    assert "Traceback" not in full.err
    done = sum(line.startswith("[") for line in full.out.splitlines())
    assert 0 < done < 8
    found = call("compare", "digits", "--methods", "sgd", *words)
    assert found.code == 0
    assert f"8 runs, {done} already finished" in found.out


# --- In a process of its own -------------------------------------------------------------------


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "anyorder.command.cli",
            "compare",
            "digits",
            "--methods",
            *words,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SRC), "COLUMNS": "200", "NO_COLOR": "1"},
        start_new_session=True,
    )


#: A method that stands still in the second run, until it is ended.
STOPPING = """
import pathlib, torch


class Mine(torch.optim.SGD):
    def step(self, closure):
        if any('"end"' in path.read_text() for path in pathlib.Path("o/runs").iterdir()):
            open("gate").read()
        return super().step(closure)
"""


def test_ctrl_c_stores_says_how_to_go_on_and_goes(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(STOPPING)
    os.mkfifo(tmp_path / "gate")
    words = (
        "--budget",
        "20grads",
        "--tune",
        "0",
        "--seeds",
        "9",
        "--threads",
        "1",
        "--out",
        "o",
        "--no-twin",
        "--no-defaults",
    )
    process = start(tmp_path, "mine.py:Mine", *words)
    with (tmp_path / "gate").open("w"):  # opens as soon as the other end is opened for reading
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
        _, err = process.communicate()
    assert process.returncode == 130
    assert "1 of 9 runs are finished and kept" in err
    assert "continue with: anyorder compare digits --methods mine.py:Mine --budget 20grads" in err
    assert "Traceback" not in err
    assert not (tmp_path / "o" / "results.json").exists()

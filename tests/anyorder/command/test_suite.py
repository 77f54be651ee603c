"""The command ``anyorder suite``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from anyorder.compare.run import pool
from anyorder.testing.elsewhere import processes

TINY = ("--problems", "cancer", "--methods", "adamw,sgd", "--budget", "10grads", "--threads", "1")


@pytest.fixture(autouse=True)
def _forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers in this process begin with PyTorch in memory."""
    monkeypatch.setattr(pool, "multiprocessing", SimpleNamespace(get_context=lambda _: processes()))


def test_a_suite_with_its_output(call: Callable[..., Any], tmp_path: Path) -> None:
    found = call("suite", "quick", *TINY)
    assert found.code == 0, found.err
    assert "[1/1] cancer: table, convex" in found.out
    assert "## Over all problems" in found.out
    assert (tmp_path / "suites/quick/suite.html").exists()
    again = call("suite", "quick", *TINY, "--json")
    assert json.loads(again.out)["methods"] == ["adamw", "sgd"]


@pytest.mark.slow
def test_a_method_that_fails_gives_exit_code_1(call: Callable[..., Any]) -> None:
    words = [*TINY]
    words[words.index("adamw,sgd")] = "sgd,torch.optim:Nothing"
    found = call("suite", "quick", *words)
    assert found.code == 1
    assert "failed: torch.optim:Nothing on cancer" in found.err


def test_wrong_names(call: Callable[..., Any]) -> None:
    found = call("suite", "fast")
    assert found.code == 2
    assert "unknown suite 'fast'" in found.err

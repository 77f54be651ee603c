"""The command ``anyorder race``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from anyorder.compare.run import pool
from anyorder.testing.elsewhere import processes

TINY = ("quadratic", "--budget", "600grads", "--methods", "adamw", "--threads", "1")


@pytest.fixture(autouse=True)
def _forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers in this process begin with PyTorch in memory."""
    monkeypatch.setattr(pool, "multiprocessing", SimpleNamespace(get_context=lambda _: processes()))


def test_a_race_with_its_output(call: Callable[..., Any], tmp_path: Path) -> None:
    found = call("race", *TINY)
    assert found.code == 0, found.err
    assert "stage 1: " in found.out
    assert "quadratic: adamw" in found.out
    folder = tmp_path / "races" / "quadratic-600grads"
    assert sorted(path.name for path in folder.iterdir() if path.name != "output.log") == [
        ".race.lock", "model.pt", "race.json", "race.jsonl", "race.txt",
    ]  # fmt: skip
    again = json.loads(call("race", *TINY, "--json").out)
    assert again["winner"]["method"] == "adamw"
    assert (tmp_path / again["model"]).exists()


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("digits", "--budget", "5grads"), 2, "too small for 5 methods"),
        (("digits", "--memory", "much"), 2, "expected a size"),
        (("no-problem",), 3, "unknown problem"),
        (("digits", "--methods", "adamx"), 2, "adamw"),
    ],
)
def test_errors(call: Callable[..., Any], words: tuple[str, ...], code: int, text: str) -> None:
    found = call("race", *words, "--threads", "1")
    assert found.code == code
    assert text in found.err

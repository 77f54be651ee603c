"""What tests of commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from anyorder.command import cli


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

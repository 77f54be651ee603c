"""The record of where a comparison ran."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from anyorder.compare.run import environment as module
from anyorder.compare.run.environment import cores, environment


def test_what_is_recorded() -> None:
    found = environment(3, 2, "cpu")
    assert found["packages"]["torch"] == torch.__version__
    assert (found["threads"], found["jobs"], found["device"]) == (3, 2, "cpu")
    assert found["cores"] == cores() >= 1
    assert found["processor"]
    assert json.loads(json.dumps(found)) == found


def test_outside_a_repository_there_is_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert module._git() is None
    monkeypatch.setenv("PATH", "")
    assert module._git() is None

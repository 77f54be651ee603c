"""The record of where something was measured."""

from __future__ import annotations

import getpass
import platform
from pathlib import Path

import pytest
import torch
from example_results import as_json

from anyorder.compare.run import environment as module
from anyorder.compare.run.environment import computer, cores, environment, load, processor


def test_what_is_recorded() -> None:
    found = environment(3, 2, "cpu")
    assert found.computer["torch"] == torch.__version__
    assert (found.threads, found.jobs, found.device) == (3, 2, "cpu")
    assert found.cores == cores() >= 1
    assert as_json(found)["computer"] == computer()
    assert (load() or 0.0) >= 0.0


def test_a_computer_says_what_was_used_and_nothing_about_who() -> None:
    found = computer()
    assert {"python", "torch", "numpy", "anyorder", "cpu", "platform"} <= set(found)
    assert found["python"] == platform.python_version()
    text = " ".join(found.values())
    assert platform.node() not in text
    assert "/" not in text.replace(found["cpu"], "")
    assert getpass.getuser() not in text.split()


def test_the_processor_is_read_from_the_system(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Abacus 3000: fast\n")
    assert processor(cpuinfo) == "Abacus 3000: fast"
    assert processor(tmp_path / "none") in (platform.processor(), platform.machine())


def test_outside_a_repository_there_is_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert module._git() is None
    monkeypatch.setenv("PATH", "")
    assert module._git() is None

"""The template: it works as it is written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from anyorder.command import scaffold
from anyorder.command.scaffold import ScaffoldError, new_method
from anyorder.compare.plan.entrants import resolve


def test_the_method_descends(tmp_path: Path) -> None:
    method, test = new_method("sign_memory", tmp_path / "new")
    assert (method.name, test.name) == ("sign_memory.py", "test_sign_memory.py")
    entrant = resolve(f"{method}:SignMemory")
    assert [each.name for each in entrant.space] == ["lr"]
    x = torch.nn.Parameter(torch.tensor([3.0]))
    optimizer = entrant.cls([x], lr=0.1, beta=0.5)  # type: ignore[call-arg]
    for _ in range(50):
        optimizer.step(lambda: (x**2).sum())  # type: ignore[arg-type]
    assert abs(x.item()) < 0.1


def test_its_own_test_passes(tmp_path: Path) -> None:
    new_method("sign_memory", tmp_path)
    environment = {
        **__import__("os").environ,
        "PYTHONPATH": str(Path(scaffold.__file__).parents[1]),
    }
    some = ["-k", "formula or descends or ledger or documented", "--doctest-modules"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), *some, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


@pytest.mark.parametrize("name", ["Big", "two words", "1st", "class", "", "../x", "adamw"])
def test_names_that_cannot_be(name: str, tmp_path: Path) -> None:
    with pytest.raises(ScaffoldError):
        new_method(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("keep me")
    with pytest.raises(ScaffoldError, match=r"test_mine\.py exists already"):
        new_method("mine", tmp_path)
    assert (tmp_path / "test_mine.py").read_text() == "keep me"
    assert not (tmp_path / "mine.py").exists()


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ScaffoldError, match="cannot write into"):
        new_method("mine", tmp_path / "file" / "there")

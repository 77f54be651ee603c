"""The template: it works as it is written."""

from __future__ import annotations

import os
import shutil
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
    environment = os.environ | {"PYTHONPATH": str(Path(scaffold.__file__).parents[2])}
    some = ["-k", "reference or descent or descends or ledger or sign_memory.SignMemory"]
    some += ["--doctest-modules"]
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
    with pytest.raises(ScaffoldError, match=r"test_mine\.py already exists"):
        new_method("mine", tmp_path)
    assert (tmp_path / "test_mine.py").read_text() == "keep me"
    assert not (tmp_path / "mine.py").exists()


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ScaffoldError, match="cannot write into"):
        new_method("mine", tmp_path / "file" / "there")


# In a checkout of the library ------------------------------------------------------------------

ROOT = Path(__file__).parents[3]
COPIED = ("src", "tests", "docs", "benchmarks", "distributions")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the library as it is, with the tools of this environment."""
    root = tmp_path / "checkout"
    junk = shutil.ignore_patterns("__pycache__", ".*_cache")
    for name in COPIED:
        shutil.copytree(ROOT / name, root / name, ignore=junk)
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copy(path, root)
    (root / ".venv").symlink_to(sys.prefix, target_is_directory=True)
    return root


def test_files_go_to_their_places_in_a_checkout(tmp_path: Path) -> None:
    for name in ("src/anyorder/methods", "tests/anyorder/methods"):
        (tmp_path / name).mkdir(parents=True)
    method, test = new_method("sign_memory", tmp_path)
    assert method == tmp_path / "src/anyorder/methods/sign_memory.py"
    assert test == tmp_path / "tests/anyorder/methods/test_sign_memory.py"
    assert "from anyorder.methods.sign_memory import SignMemory" in test.read_text()
    assert "from anyorder.methods.sign_memory import SignMemory" in method.read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_new_method_passes_all_checks_of_the_library(checkout: Path) -> None:
    """As `make check` does, but for those tests that know nothing of methods."""
    environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)

    def run(*words: str) -> str:
        done = subprocess.run(
            words, cwd=checkout, capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, f"{words}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done.stdout

    python = str(checkout / ".venv/bin/python")
    make = ("make", "-o", ".venv/.installed")  # the environment is not to be made anew
    command = "from anyorder.command.cli import main; main()"
    said = run(python, "-c", command, "new", "method", "sign_memory")
    steps = [line.partition(":")[2] for line in said.splitlines() if line.startswith("list it")]
    assert steps, "the command says what else there is to do"
    for step in steps[0].split(";"):
        words = step.split()
        run(*(make if words[0] == "make" else (python, "-m", words[0])), *words[1:])
    assert "sign_memory" in (checkout / "README.md").read_text(encoding="utf-8")
    run(*make, "lint")
    run(*make, "docs")
    tests = ["tests/test_architecture.py", "tests/test_typing.py", "tests/test_docs.py"]
    run(python, "-m", "pytest", "-q", "-k", "not browser", *tests)
    own = ["tests/anyorder/methods/test_sign_memory.py", "src/anyorder/methods/sign_memory.py"]
    run(python, "-m", "pytest", "-q", *own)
    general = ["tests/test_contract.py", "tests/test_golden.py"]
    run(python, "-m", "pytest", "-q", "-m", "", "-k", "sign_memory", *general)

"""What `pip install anyorder` gives: the built wheel, in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import anyorder
from anyorder import methods

ROOT = Path(__file__).parent.parent
#: What the extras bring, as it lies in site-packages (jinja2 comes with PyTorch anyway,
#: pydantic with new versions of typer).
EXTRAS = {
    *("optuna", "sklearn", "scipy", "plotly", "matplotlib", "starlette", "uvicorn", "sqlalchemy"),
    *("latex2mathml", "psycopg2", "multipart", "python_multipart", "pytest", "_pytest"),
    *("hypothesis",),
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from what is here, without fetching anything."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True, text=True)
    (built,) = out.glob("*.whl")
    return built


class Environment:
    """A clean virtual environment with the wheel in it; the dependencies are lent by this one."""

    def __init__(self, folder: Path, wheel: Path, without: set[str]) -> None:
        venv.create(folder, with_pip=False, symlinks=os.name != "nt")
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        paths = {"base": str(folder), "platbase": str(folder)}
        self.site = Path(sysconfig.get_path("purelib", "venv", vars=paths))
        target = ["--python", str(self.bin / "python")]
        install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
        subprocess.run([sys.executable, "-m", "pip", *target, *install], check=True)
        lent = folder / "lent"
        lent.mkdir()
        for scheme in ("purelib", "platlib"):
            for entry in Path(sysconfig.get_path(scheme)).iterdir():
                ours = "anyorder" in entry.name or entry.suffix == ".pth"
                if not ours and entry.name not in without and not (lent / entry.name).exists():
                    (lent / entry.name).symlink_to(entry)
        (self.site / "lent.pth").write_text(f"{lent}\n")

    def run(self, *command: str, expect: int = 0) -> str:
        """Run a command of the environment in an empty folder; returns what it prints."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ANYORDER"))}
        done = subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            capture_output=True,
            text=True,
            cwd=self.site.parent,
            env=clean | {"COLUMNS": "200"},
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + (done.stderr if expect else "")


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """As after `pip install anyorder`: no extra is there."""
    return Environment(tmp_path_factory.mktemp("bare"), wheel, without=EXTRAS)


@pytest.fixture(scope="module")
def whole(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """As after `pip install anyorder[all]`."""
    return Environment(tmp_path_factory.mktemp("whole"), wheel, without=set())


# The file ---------------------------------------------------------------------------------------


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    src = ROOT / "src"
    wanted = {
        path.relative_to(src).as_posix()
        for package in src.iterdir()
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts
    }
    assert wanted <= held, f"missing: {sorted(wanted - held)}"
    assert {name.split("/")[0].split("-")[0] for name in held} <= {
        "anyorder", "anyorder_studies", "anyorder_papers",
    }  # fmt: skip


def test_the_wheel_describes_itself(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata["Version"] == anyorder.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "# AnyOrder" in metadata.get_payload()
    plain = [r for r in metadata.get_all("Requires-Dist", []) if "extra ==" not in r]
    assert len(plain) <= 4, f"the library itself should need little: {plain}"
    assert any(n.endswith("licenses/LICENSE") for n in archive.namelist())


# Installed without extras -----------------------------------------------------------------------


def test_the_package_is_the_installed_one(bare: Environment) -> None:
    where = bare.run("python", "-c", "import anyorder; print(anyorder.__file__)")
    assert where.startswith(str(bare.site)), where


def test_the_library_trains(bare: Environment) -> None:
    code = (
        "import torch, anyorder\n"
        "from anyorder.methods.adahessian import AdaHessian\n"
        "x = torch.nn.Parameter(torch.ones(3))\n"
        "optimizer = AdaHessian([x])\n"
        "for _ in range(3): optimizer.step(lambda: (x ** 2).sum())\n"
        "print(optimizer.calls.products)"
    )
    assert bare.run("python", "-c", code).split() == ["3"]


def test_the_command_tells_its_version(bare: Environment) -> None:
    assert anyorder.__version__ in bare.run("anyorder", "--version")


def test_the_command_lists_the_methods(bare: Environment) -> None:
    listed = bare.run("anyorder", "list")
    assert all(name in listed for name in methods.names())
    assert "Traceback" not in listed
    json.loads(bare.run("anyorder", "list", "--json"))


def test_a_problem_can_be_checked(bare: Environment) -> None:
    assert "one answer costs" in bare.run("anyorder", "check", "quadratic")


def test_a_missing_extra_is_named(bare: Environment) -> None:
    words = bare.run("anyorder", "compare", "rosenbrock", "--methods", "mezo", expect=2)
    assert "anyorder[compare]" in words
    assert "Traceback" not in words


# Installed with everything ----------------------------------------------------------------------


def test_every_module_can_be_imported(whole: Environment) -> None:
    code = (
        "import importlib, pkgutil\n"
        "for top in ('anyorder', 'anyorder_studies', 'anyorder_papers'):\n"
        "    package = importlib.import_module(top)\n"
        "    for module in pkgutil.walk_packages(package.__path__, top + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "print('all')"
    )
    assert whole.run("python", "-c", code).split() == ["all"]


def test_commands_of_the_other_packages_are_found(whole: Environment) -> None:
    words = whole.run("anyorder", "--help")
    assert "study" in words
    assert "papers" in words
    assert "16" in whole.run("anyorder", "papers", "show", "16")
    assert whole.run("anyorder", "study", "list")

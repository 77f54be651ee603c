"""What `pip install` gives: the three distributions, built, in environments of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.message import Message
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


#: The distributions of this repository: where each is built from, and its package in ``src``.
DISTRIBUTIONS = {
    "anyorder": ROOT,
    "anyorder_studies": ROOT / "distributions/studies",
    "anyorder_papers": ROOT / "distributions/papers",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution of each, and the wheel made of that, without fetching anything."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out)]
    for folder in DISTRIBUTIONS.values():
        subprocess.run([*command, str(folder)], check=True, capture_output=True, text=True)
    return out


def wheel(built: Path, name: str) -> Path:
    return built / f"{name}-{anyorder.__version__}-py3-none-any.whl"


def files(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def metadata(wheel: Path) -> Message:
    (name,) = [n for n in files(wheel) if n.endswith(".dist-info/METADATA")]
    return Parser().parsestr(zipfile.ZipFile(wheel).read(name).decode())


class Environment:
    """A clean virtual environment; the dependencies are lent by this one."""

    def __init__(self, folder: Path, without: set[str]) -> None:
        venv.create(folder, with_pip=False, symlinks=os.name != "nt")
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        paths = {"base": str(folder), "platbase": str(folder)}
        self.site = Path(sysconfig.get_path("purelib", "venv", vars=paths))
        lent = folder / "lent"
        lent.mkdir()
        for scheme in ("purelib", "platlib"):
            for entry in Path(sysconfig.get_path(scheme)).iterdir():
                ours = "anyorder" in entry.name or entry.suffix == ".pth"
                if not ours and entry.name not in without and not (lent / entry.name).exists():
                    (lent / entry.name).symlink_to(entry)
        (self.site / "lent.pth").write_text(f"{lent}\n")

    def install(self, *words: str) -> None:
        """Install with pip, which may fetch nothing."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install"]
        plain = {k: v for k, v in os.environ.items() if k not in ("PIP_FIND_LINKS", "PYTHONPATH")}
        subprocess.run(
            [*pip, "--quiet", "--no-index", "--no-compile", *words],
            check=True,
            env=plain | {"PIP_CONFIG_FILE": os.devnull},
        )

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

    def where(self, *packages: str) -> list[Path | None]:
        """The files that ``import`` finds, and ``None`` where there is no such package."""
        code = (
            "import importlib, json\n"
            "found = []\n"
            f"for name in {packages!r}:\n"
            "    try: found.append(importlib.import_module(name).__file__)\n"
            "    except ModuleNotFoundError: found.append(None)\n"
            "print(json.dumps(found))"
        )
        return [path and Path(path) for path in json.loads(self.run("python", "-c", code))]


@pytest.fixture(scope="module")
def bare(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """As after `pip install anyorder`: no extra and no other distribution is there."""
    environment = Environment(tmp_path_factory.mktemp("bare"), without=EXTRAS)
    environment.install("--no-deps", str(wheel(built, "anyorder")))
    return environment


@pytest.fixture(scope="module")
def whole(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """As after `pip install 'anyorder[all]' anyorder-studies 'anyorder-papers[site]'`.

    pip finds all that the three require, or fails.
    """
    environment = Environment(tmp_path_factory.mktemp("whole"), without=set())
    extras = {"anyorder": "[all]", "anyorder_studies": "", "anyorder_papers": "[site]"}
    environment.install(*(f"{wheel(built, name)}{extra}" for name, extra in extras.items()))
    return environment


@pytest.fixture(scope="module")
def editable(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """As after `make install`: all three stay where they are."""
    environment = Environment(tmp_path_factory.mktemp("editable"), without=set())
    each = [word for folder in DISTRIBUTIONS.values() for word in ("--editable", str(folder))]
    environment.install("--no-build-isolation", *each)
    return environment


# The files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_wheel_holds_every_file_of_its_package_and_no_other(built: Path, name: str) -> None:
    src = ROOT / "src"
    wanted = {
        path.relative_to(src).as_posix()
        for path in (src / name).rglob("*")
        if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts
    }
    held = {n for n in files(wheel(built, name)) if ".dist-info/" not in n}
    assert held == wanted


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_wheel_is_the_same_from_the_repository_and_from_its_sources(
    built: Path, name: str, tmp_path: Path
) -> None:
    from hatchling.builders.wheel import WheelBuilder

    list(WheelBuilder(str(DISTRIBUTIONS[name])).build(directory=str(tmp_path)))
    ours, other = (zipfile.ZipFile(wheel(folder, name)) for folder in (built, tmp_path))
    assert set(ours.namelist()) == set(other.namelist())
    assert all(ours.read(n) == other.read(n) for n in ours.namelist())


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_source_distribution_holds_no_other_package(built: Path, name: str) -> None:
    with tarfile.open(built / f"{name}-{anyorder.__version__}.tar.gz") as archive:
        inside = [Path(n).parts[1:] for n in archive.getnames()]
    assert {parts[1] for parts in inside if parts[0] == "src"} == {name}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_wheel_describes_itself(built: Path, name: str) -> None:
    found = metadata(wheel(built, name))
    assert found["Version"] == anyorder.__version__
    assert found["License-Expression"] == "Apache-2.0"
    assert found["Requires-Python"] == ">=3.11"
    assert str(found.get_payload()).lower().startswith(f"# {name.replace('_', '-')}")
    assert any(n.endswith("licenses/LICENSE") for n in files(wheel(built, name)))
    required = [r for r in found.get_all("Requires-Dist", []) if "extra ==" not in r]
    if name == "anyorder":
        assert len(required) <= 4, f"the library itself should need little: {required}"
    else:
        assert f"anyorder=={anyorder.__version__}" in required


def test_the_other_distributions_share_what_each_needs() -> None:
    for folder in DISTRIBUTIONS.values():
        assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    hooks = {path.read_bytes() for path in (ROOT / "distributions").glob("*/hatch_build.py")}
    assert len(hooks) == 1


# Installed without extras -----------------------------------------------------------------------


def test_the_library_is_the_installed_one_and_comes_alone(bare: Environment) -> None:
    library, *others = bare.where(*DISTRIBUTIONS)
    assert library is not None and library.is_relative_to(bare.site)
    assert others == [None, None]
    assert not re.findall(r"^\W*(?:study|papers) ", bare.run("anyorder", "--help"), re.MULTILINE)


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
    listed = bare.run("anyorder", "list", "--json")
    assert json.loads(listed)
    assert all(f'"{name}"' in listed for name in methods.names())


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
    assert len(re.findall(r"^\W*(?:study|papers) ", words, re.MULTILINE)) == 2
    assert "16" in whole.run("anyorder", "papers", "show", "16")
    assert whole.run("anyorder", "study", "list")


def test_one_of_the_others_may_be_there_alone(built: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "papers", without=EXTRAS)
    environment.install(*(str(wheel(built, name)) for name in ("anyorder", "anyorder_papers")))
    words = environment.run("anyorder", "--help")
    assert "papers" in words and not re.search(r"^\W*study ", words, re.MULTILINE)
    assert "16" in environment.run("anyorder", "papers", "show", "16")
    assert "anyorder-papers[site]" in environment.run("anyorder", "papers", "serve", expect=2)


# Installed to be changed ------------------------------------------------------------------------


def test_an_editable_installation_leads_to_the_repository(editable: Environment) -> None:
    places = [ROOT / "src" / package / "__init__.py" for package in DISTRIBUTIONS]
    assert editable.where(*DISTRIBUTIONS) == places
    assert "16" in editable.run("anyorder", "papers", "show", "16")
    assert editable.run("anyorder", "study", "list")

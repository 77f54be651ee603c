"""The architecture: locations of files, imports between layers, limits on size."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import anyorder
from anyorder import methods, problems
from anyorder.methods._by_role import ByRole
from anyorder.methods._from_values import FromValues
from anyorder.optimizer import Optimizer
from anyorder.optimizer.population import Population

ROOT = Path(__file__).parent.parent
SRC, TESTS = ROOT / "src", ROOT / "tests"
PACKAGES = ("anyorder", "anyorder_studies", "anyorder_papers")
FILE_LINES, FUNCTION_LINES = 400, 60

#: Files without their own test, with reasons.
NO_TEST: dict[str, str] = {
    "anyorder/integrations/lightning.py": "with the library, in tests/stacks/test_lightning.py",
    "anyorder/integrations/transformers.py": "with it, in tests/stacks/test_transformers.py",
    "anyorder_papers/errors.py": "one class without a body",
}
#: Tests that do not belong to a single file, with reasons.
NO_FILE: dict[str, str] = {
    "anyorder/compare/stats/test_simulations.py": "what verdicts and intervals promise together",
    "anyorder/compare/store/test_dashboard.py": "optuna-dashboard reads the storage",
    "anyorder/compare/test_scale_out.py": "several hosts, servers that restart, processes that die",
    "anyorder_studies/test_contract.py": "the contract of every study",
}
#: Files above the limit of lines, with reasons not to split them.
LONG_FILES: dict[str, str] = {
    "anyorder/optimizer/base.py": "one class: the interface for users and for methods",
    "anyorder/oracle/closure_oracle.py": "one closure and every answer that it gives",
    "anyorder/testing/contract.py": "one class with one test per property of the contract",
    "anyorder/compare/store/storage.py": "one database: its tables and all code that uses them",
    "anyorder/compare/run/runner.py": "one run, and its judgement",
    "anyorder/compare/plan/space.py": "search spaces and the trials drawn from them",
    "anyorder/compare/plan/entrants.py": "all forms in which a method can be named",
}
#: Functions above the limit of lines (without docstring), with reasons.
LONG_FUNCTIONS: dict[str, str] = {}
#: Files that may use PyTorch's private operations on lists.
FOREACH = {"anyorder/engine/tensors.py", "anyorder/engine/packing.py"}


def sources(*packages: str) -> list[Path]:
    return sorted(p for name in packages or PACKAGES for p in (SRC / name).rglob("*.py"))


def shown(path: Path) -> str:
    return path.relative_to(SRC).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def tracked() -> list[Path]:
    """The files under version control."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [p for name in listed.split("\0") if name and (p := ROOT / name).is_file()]


# Locations ------------------------------------------------------------------------------------


def test_every_file_has_its_test() -> None:
    missing = [
        shown(path)
        for path in sources()
        if path.name != "__init__.py"
        and not (TESTS / path.parent.relative_to(SRC) / f"test_{path.name}").exists()
    ]
    unexplained = [name for name in missing if name not in NO_TEST]
    assert not unexplained, f"write tests/.../test_NAME.py for: {unexplained}"


def test_every_test_has_its_file() -> None:
    strays: list[str] = []
    for package in PACKAGES:
        for path in (TESTS / package).rglob("test_*.py"):
            folder = SRC / path.parent.relative_to(TESTS)
            name = path.name.removeprefix("test_")
            if name in ("init.py", "__init__.py") and folder.is_dir():
                continue
            if not list(folder.glob(f"{name.removesuffix('.py')}.*")):
                strays.append(path.relative_to(TESTS).as_posix())
    assert sorted(strays) == sorted(NO_FILE), (
        "the folder of a test must mirror that of the tested file"
    )


def test_exceptions_are_still_exceptions() -> None:
    for name in NO_TEST:
        assert (SRC / name).exists(), f"{name} does not exist; remove it from the list"


def test_a_methods_name_is_its_files_name() -> None:
    files = {p.stem for p in (SRC / "anyorder/methods").glob("*.py")} - {"__init__"}
    assert set(methods.names()) == {name for name in files if not name.startswith("_")}
    for name in methods.names():
        kind = methods.get(name)
        assert kind.__name__.lower() == name.replace("_", "")
        assert kind.__module__ == f"anyorder.methods.{name}"


def test_a_problems_name_is_its_files_name() -> None:
    for name in problems.names():
        assert (SRC / "anyorder/problems" / f"{name.replace('-', '_')}.py").exists()
        assert problems.load(name).name == name


def test_one_class_per_method_and_no_family_trees() -> None:
    for name in methods.names():
        kind = methods.get(name)
        kinds = ((Optimizer,), (Population,), (ByRole,), (FromValues,))
        assert kind.__bases__ in kinds, f"{name} derives from a method"
        assert not inspect.isabstract(kind)
        defined = [n.name for n in tree(SRC / f"anyorder/methods/{name}.py").body
                   if isinstance(n, ast.ClassDef)]  # fmt: skip
        assert defined == [kind.__name__], f"{name}.py defines {defined}; one class, plus rules"


# Imports --------------------------------------------------------------------------------------


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_nobody_imports_upwards() -> None:
    pytest.importorskip("importlinter")
    # In a new process, since the linter disables the loggers of its own process.
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    words = [sys.executable, "-c", program, "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_methods_do_not_cross_machines() -> None:
    for path in sources("anyorder"):
        if path.parent.name in ("methods", "rules", "linalg"):
            assert not [m for m in imported(path) if "distributed" in m], shown(path)


def test_the_library_starts_without_its_extras() -> None:
    code = (
        "import sys, anyorder, anyorder.command.cli, anyorder.compare, anyorder.problems\n"
        "for name in anyorder.methods.names(): anyorder.methods.get(name)\n"
        "heavy = 'optuna sklearn scipy pydantic jinja2 matplotlib starlette sqlalchemy'\n"
        "print(*sorted(set(heavy.split()) & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SRC)},
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [], "import extras inside the functions that need them"


def test_lists_of_tensors_are_handled_in_one_place() -> None:
    found = {shown(p) for p in sources() if "_foreach_" in p.read_text(encoding="utf-8")}
    assert found <= FOREACH


def test_rules_are_compiled_in_one_place() -> None:
    uses = {
        shown(path)
        for path in sources()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.compile"
    }
    # The contract tests methods on compiled models.
    assert uses <= {"anyorder/testing/worlds.py"}, "only anyorder.engine compiles rules"


# Limits on size -------------------------------------------------------------------------------


def test_files_stay_readable() -> None:
    long = {shown(p) for p in sources() if len(p.read_text("utf-8").splitlines()) > FILE_LINES}
    assert long == set(LONG_FILES), (
        f"above {FILE_LINES} lines: split them, or add a reason to LONG_FILES"
    )


def test_functions_stay_readable() -> None:
    long: set[str] = set()
    for path in sources():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) is not None else node.body
                last = node.end_lineno or node.lineno
                if body and last - body[0].lineno + 1 > FUNCTION_LINES:
                    long.add(f"{shown(path)}:{node.name}")
    assert long == set(LONG_FUNCTIONS), f"above {FUNCTION_LINES} lines: see LONG_FUNCTIONS"


# Texts ----------------------------------------------------------------------------------------


def test_the_library_does_not_print() -> None:
    printing = [
        f"{shown(path)}:{node.lineno}"
        for path in sources()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert not printing, "the command line writes with rich or typer; the library does not write"


def test_every_public_symbol_says_what_it_is() -> None:
    mute: list[str] = []
    for path in sources():
        nodes: list[tuple[str, ast.AST]] = [(shown(path), tree(path))]
        while nodes:
            name, node = nodes.pop()
            public = not name.rsplit(":", 1)[-1].startswith("_") or node is tree(path)
            if not public:
                continue
            documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            if documented and ast.get_docstring(node) is None:  # type: ignore[arg-type]
                decorators = getattr(node, "decorator_list", [])
                if not any("overload" in ast.unparse(d) for d in decorators):
                    mute.append(name)
            if isinstance(node, ast.Module | ast.ClassDef):
                nodes += [
                    (f"{name}:{child.name}", child)
                    for child in node.body
                    if isinstance(child, ast.ClassDef | ast.FunctionDef)
                ]
    assert not mute, f"without a docstring: {mute}"


def test_the_public_names_exist_and_are_described() -> None:
    for name in anyorder.__all__:
        value = getattr(anyorder, name)
        assert name.startswith("__") or inspect.ismodule(value) or inspect.getdoc(value), name


FORBIDDEN = {
    "a path of one machine": r"(?<![\w./~-])/(?:work|root|home|Users)/\w",
    "a package registry's host": r"\b(?:files\.pythonhosted|pypi|registry\.npmjs)\.org\b",
    "unfinished work": r"\b(?:TODO|FIXME|XXX)\b",
    "a conflict": r"^(?:<{7}|>{7}) ",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_tracked_files_hold_nothing_of(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what], re.MULTILINE)
    found: list[str] = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if path == Path(__file__):
            text = text.replace(FORBIDDEN[what], "")
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{path.relative_to(ROOT)}:{line}: {match.group()}")
    assert not found, found[:20]


# Packaging ------------------------------------------------------------------------------------


#: The folder of the pyproject.toml of each package.
PROJECTS = {
    "anyorder": ROOT,
    "anyorder_studies": ROOT / "distributions/studies",
    "anyorder_papers": ROOT / "distributions/papers",
}


@cache
def described(package: str) -> dict[str, Any]:
    return tomllib.loads((PROJECTS[package] / "pyproject.toml").read_text(encoding="utf-8"))


def test_there_is_one_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", changelog, re.MULTILINE)
    assert newest is not None
    assert anyorder.__version__ == newest.group(1)
    try:
        installed = importlib.metadata.distribution("anyorder")
    except importlib.metadata.PackageNotFoundError:
        return
    assert installed.version == anyorder.__version__


def required(package: str) -> Iterator[Requirement]:
    """Requirements of a distribution with extras, except other packages of this repository."""
    project, hooks = described(package)["project"], described(package)["tool"]["hatch"]
    listed = list(project.get("dependencies", []))
    listed += hooks.get("metadata", {}).get("hooks", {}).get("custom", {}).get("dependencies", [])
    for extra in project.get("optional-dependencies", {}).values():
        listed += extra
    for requirement in map(Requirement, listed):
        if requirement.name.replace("-", "_") not in PACKAGES:
            yield requirement


def test_the_pinned_versions_satisfy_the_ranges() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]
    versions = {pin.name.lower(): str(pin.specifier).removeprefix("==") for pin in pins}
    everything = [r for package in PACKAGES for r in required(package)]
    everything += map(Requirement, described("anyorder")["dependency-groups"]["dev"])
    for requirement in everything:
        if requirement.name == "nevergrad":  # with what it brings, too large to install for tests
            continue
        assert requirement.name.lower() in versions, f"{requirement.name} is not pinned"
        assert requirement.specifier.contains(versions[requirement.name.lower()]), requirement


@pytest.mark.parametrize("package", PACKAGES)
def test_everything_that_is_imported_is_declared(package: str) -> None:
    declared = [*required(package), *required("anyorder")]
    names = {r.name.lower().replace("-", "_") for r in declared}
    names |= {"sklearn", "multipart", "psycopg2", "markupsafe", "cycler"}  # different names,
    # and dependencies of jinja2 and matplotlib
    known = set(sys.stdlib_module_names) | set(PACKAGES) | names
    for path in sources(package):
        for module in imported(path):
            top = module.split(".")[0]
            assert top in known or _optional(path, top), f"{shown(path)} imports {top}"


def _optional(path: Path, module: str) -> bool:
    """Whether ``module`` is imported only inside functions, as an optional dependency."""
    return module not in {
        name.split(".")[0]
        for node in tree(path).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import)
                     else [node.module or ""])
    }  # fmt: skip


def test_entry_points_lead_somewhere() -> None:
    targets = [*described("anyorder")["project"]["scripts"].values()]
    for package in PACKAGES[1:]:
        (added,) = described(package)["project"]["entry-points"].values()
        targets += added.values()
    assert len(targets) == len(PACKAGES)
    for target in targets:
        module, name = target.split(":")
        assert hasattr(importlib.import_module(module), name), target

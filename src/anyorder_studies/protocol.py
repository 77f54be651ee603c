"""What a study declares before it runs: units, and hashes of claims, protocol and code.

A result stores the hashes of its run. If those of the study differ later, :func:`changes` says so,
and every page shows it beside the verdict.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
from enum import StrEnum
from pathlib import Path

from anyorder_studies.checkpoint import canonical
from anyorder_studies.result import StudyResult
from anyorder_studies.study import Study, StudyError, Unit

#: Attributes of a study that are no code: they have hashes of their own, or are texts.
DECLARED = {"claims", "headline", "scales", "title"}
#: The fields of a claim that decide its status; the others are texts.
DECISIVE = ("quantity", "direction", "expected", "threshold", "tolerance", "central")


class Change(StrEnum):
    """How a study differs from the one that was run."""

    AFTER_RESULTS = "changed after results"
    CODE = "code changed"


def changes(study: Study, result: StudyResult) -> Change | None:
    """Compare a study with the hashes in its result.

    Returns:
        ``"changed after results"`` if the claims, the central claim or the protocol differ, else
        ``"code changed"`` if the code does, else None.
    """
    now = hashes(study, result.scale)
    if any(now[name] != result.hashes[name] for name in ("claims", "protocol")):
        return Change.AFTER_RESULTS
    return Change.CODE if now["code"] != result.hashes["code"] else None


def hashes(study: Study, scale: str) -> dict[str, str]:
    """SHA-256 of the claims, the protocol of a scale, and the code."""
    return {
        "claims": claims_hash(study),
        "protocol": protocol_hash(study, scale),
        "code": code_hash(type(study)),
    }


def claims_hash(study: Study) -> str:
    """SHA-256 of what decides each claim, in any order."""
    return _sha256(
        canonical(sorted([getattr(claim, name) for name in DECISIVE] for claim in study.claims))
    )


def protocol_hash(study: Study, scale: str) -> str:
    """SHA-256 of a scale's settings and units: seeds, steps, grids, and all else in a unit."""
    return _sha256(canonical([study.settings(scale), plan(study, scale)]))


def plan(study: Study, scale: str) -> list[Unit]:
    """List the units of a scale.

    Raises:
        StudyError: If there are no units, two are equal, one contains values that are not JSON, or
            the number of seeds in the units differs from the requested one.
    """
    units = [json.loads(canonical(unit)) for unit in study.runs(scale)]
    if not units:
        raise StudyError(f"{study.key}: no units at scale {scale!r}")
    texts = [canonical(unit) for unit in units]
    if len(set(texts)) != len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise StudyError(f"{study.key}: the unit {twice} appears twice")
    settings, named = study.settings(scale), len(seeds_of(units))
    if "seeds" in settings:
        wanted = settings["seeds"] * settings.get("tunings", 1)
        if wanted != named:
            raise StudyError(f"{study.key}: expected {wanted} seeds, but the units have {named}")
    return units


def seeds_of(units: list[Unit]) -> tuple[int, ...]:
    """The distinct seeds of the units, in ascending order."""
    return tuple(sorted({unit["seed"] for unit in units if "seed" in unit}))


def code_hash(study: type[Study]) -> str:
    """SHA-256 of the code of all Python files in the study's folder.

    Comments, layout, docstrings, annotations, imports and what a study declares (:data:`DECLARED`)
    are ignored, so moving a module of the library does not make a stored result stale.
    """
    folder = Path(inspect.getfile(study)).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0{meaning(path.read_text('utf-8'))}\0".encode())
    return digest.hexdigest()


def meaning(source: str) -> str:
    """The syntax tree of Python code without imports, docstrings, annotations, declarations."""
    return ast.dump(_Bare().visit(ast.parse(source)))


class _Bare(ast.NodeTransformer):
    """Removes imports, docstrings, annotations, and what a study declares."""

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = [each for each in node.body if not _declares(each)] or [ast.Pass()]
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return ast.Pass()
        return ast.Assign([node.target], node.value)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        return ast.Pass() if isinstance(node.value, ast.Constant) else node


def _declares(statement: ast.stmt) -> bool:
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name in DECLARED
        case _:
            return False


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

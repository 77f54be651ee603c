"""Runs a study unit by unit and stores its result, page and figure."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

import anyorder_studies
from anyorder.compare.run.environment import computer
from anyorder.files import replaced, write_whole
from anyorder_studies.checkpoint import Checkpoint, canonical
from anyorder_studies.data import data_hash, files_hash, missing_data
from anyorder_studies.page import study_page
from anyorder_studies.result import FIGURE, FORMAT, README, RESULT, StudyResult
from anyorder_studies.study import (
    MissingDataError,
    Result,
    Results,
    Study,
    StudyError,
    Unit,
    judge,
    judge_claim,
)

UNITS = "units.jsonl"

# Called after every unit with (units done, total units, units read from the checkpoint).
Progress = Callable[[int, int, int], None]


def code_hash(study: type[Study]) -> str:
    """SHA-256 of the code of all Python files in the study's folder.

    Comments, layout, docstrings, annotations and imports are ignored, so moving a module of the
    library does not make a stored result stale.
    """
    folder = Path(inspect.getfile(study)).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0{meaning(path.read_text('utf-8'))}\0".encode())
    return digest.hexdigest()


def meaning(source: str) -> str:
    """The syntax tree of Python code without imports, docstrings and annotations."""
    return ast.dump(_Bare().visit(ast.parse(source)))


class _Bare(ast.NodeTransformer):
    """Removes imports, docstrings and annotations."""

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


def library_hash() -> str:
    """SHA-256 of the library and the harness; checkpoints from other code are not resumed."""
    harness = Path(anyorder_studies.__file__).parent
    library = sorted((harness.parent / "anyorder").rglob("*.py"))
    own = sorted(harness.glob("*.py"))
    return files_hash((str(p.relative_to(harness.parent)), p) for p in [*library, *own])


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
    asked, named = study.settings(scale).get("seeds"), len(seeds_of(units))
    if asked is not None and asked != named:
        raise StudyError(f"{study.key}: expected {asked} seeds, but the units have {named}")
    return units


def seeds_of(units: list[Unit]) -> tuple[int, ...]:
    """The distinct seeds of the units, in ascending order."""
    return tuple(sorted({unit["seed"] for unit in units if "seed" in unit}))


def run_units(
    study: Study,
    scale: str,
    folder: Path,
    *,
    fresh: bool = False,
    progress: Progress | None = None,
) -> tuple[Results, float]:
    """Run all units that are not yet in the checkpoint in ``folder``.

    Args:
        study: The study.
        scale: Scale of its settings.
        folder: Folder of ``units.jsonl``, which is created if needed.
        fresh: Discard an earlier run.
        progress: Called after the checkpoint was read and after every unit.

    Returns:
        All units with their results in the study's order, and the total time in seconds.

    Raises:
        MissingDataError: If a data set is missing; the message names the environment variable.
        StudyError: If a unit or its result cannot be stored.
    """
    reason = missing_data(study.data)
    if reason is not None:
        raise MissingDataError(reason)
    units = plan(study, scale)
    header = {
        "format": FORMAT,
        "study": study.key,
        "scale": scale,
        "code": code_hash(type(study)),
        "library": library_hash(),
        "data": data_hash(study.data),
    }
    checkpoint = Checkpoint(folder / UNITS, header, fresh=fresh)
    kept = sum(canonical(unit) in checkpoint.done for unit in units)
    for index, unit in enumerate(units):
        if progress is not None:
            progress(max(index, kept), len(units), kept)
        if canonical(unit) in checkpoint.done:
            continue
        start = time.perf_counter()
        result: Result = study.run(json.loads(canonical(unit)))
        checkpoint.add(unit, result, time.perf_counter() - start)
    if progress is not None:
        progress(len(units), len(units), kept)
    done = [checkpoint.done[canonical(unit)] for unit in units]
    return [(unit, result) for unit, (result, _) in zip(units, done, strict=True)], sum(
        seconds for _, seconds in done
    )


def evaluate(study: Study, scale: str, results: Results, seconds: float) -> StudyResult:
    """Compute measurements and verdict from the units' results."""
    measurements = study.measure(results)
    verdict = judge(study.claims, measurements)
    units = [unit for unit, _ in results]
    return StudyResult(
        key=study.key,
        paper=study.paper,
        title=study.title,
        scale=scale,
        seeds=seeds_of(units),
        units=len(units),
        seconds=seconds,
        measurements=measurements,
        statuses=tuple(judge_claim(c, measurements[c.quantity]) for c in study.claims),
        verdict=verdict,
        code=code_hash(type(study)),
        data=data_hash(study.data),
        environment={**computer(), "threads": torch.get_num_threads()},
    )


def run_study(
    study: Study,
    scale: str,
    folder: Path,
    *,
    fresh: bool = False,
    progress: Progress | None = None,
) -> StudyResult:
    """Run a study and write ``result.json``, ``README.md`` and ``figure.svg`` into ``folder``.

    Call it again with the same arguments to resume an interrupted run.
    """
    results, seconds = run_units(study, scale, folder, fresh=fresh, progress=progress)
    result = evaluate(study, scale, results, seconds)
    write_outcome(study, result, results, folder)
    return result


def write_outcome(study: Study, result: StudyResult, results: Results, folder: Path) -> None:
    """Write the figure, the page and then the result, each file atomically."""
    from anyorder_studies.drawing import draw

    with replaced(folder / FIGURE) as path:
        draw(study, results, result.measurements, path)
    write_whole(folder / README, study_page(study, result))
    write_whole(folder / RESULT, json.dumps(result.to_json(), indent=2) + "\n")

"""Runs a study unit by unit and stores its result, page and figure."""

from __future__ import annotations

import inspect
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import anyorder_studies
from anyorder.compare.run.environment import computer
from anyorder.files import replaced, write_whole
from anyorder_studies.checkpoint import Checkpoint, canonical
from anyorder_studies.data import data_hash, files_hash, missing_data
from anyorder_studies.page import study_page
from anyorder_studies.protocol import changes, code_hash, hashes, plan, seeds_of
from anyorder_studies.result import FIGURE, FORMAT, README, RESULT, StudyResult
from anyorder_studies.study import (
    Measurement,
    MissingDataError,
    Result,
    Results,
    Study,
    StudyError,
    judge,
    judge_claim,
)

UNITS = "units.jsonl"

# Called after every unit with (units done, total units, units read from the checkpoint).
Progress = Callable[[int, int, int], None]


def library_hash() -> str:
    """SHA-256 of the library and the harness; checkpoints from other code are not resumed."""
    harness = Path(anyorder_studies.__file__).parent
    library = sorted((harness.parent / "anyorder").rglob("*.py"))
    own = sorted(harness.glob("*.py"))
    return files_hash((str(p.relative_to(harness.parent)), p) for p in [*library, *own])


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


def committed(study: type[Study]) -> str | None:
    """The commit that contains a study's declarations and code.

    Returns:
        Its hash; ``None`` if the study is not in a repository.

    Raises:
        StudyError: If a Python file of the study has changes that are not committed.
    """
    folder = Path(inspect.getfile(study)).parent
    if _git(folder, "ls-files", "study.py") != "study.py":
        return None
    changed = _git(folder, "status", "--porcelain", "--", "*.py")
    if changed:
        raise StudyError(
            f"{study.key}: a stored run needs claims and protocol that were committed before it; "
            f"commit these files first:\n{changed}"
        )
    return _git(folder, "rev-parse", "HEAD")


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:  # git is not installed
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def evaluate(
    study: Study, scale: str, results: Results, seconds: float, *, commit: str | None = None
) -> StudyResult:
    """Compute measurements and verdict from the units' results."""
    measurements = study.measure(results)
    units = [unit for unit, _ in results]
    return StudyResult(
        key=study.key,
        paper=study.paper,
        title=study.title,
        scale=scale,
        seeds=seeds_of(units),
        units=len(units),
        seconds=seconds,
        date=datetime.now(UTC).date().isoformat(),
        measurements=measurements,
        **judgement(study, measurements),
        hashes=hashes(study, scale),
        commit=commit,
        data=data_hash(study.data),
        environment={**computer(), "threads": torch.get_num_threads()},
    )


def judgement(study: Study, measurements: Mapping[str, Measurement]) -> dict[str, Any]:
    """Judge the study's claims: ``claims``, ``statuses`` and ``verdict`` of a result."""
    return {
        "claims": study.claims,
        "verdict": judge(study.claims, measurements),
        "statuses": tuple(judge_claim(c, measurements[c.quantity]) for c in study.claims),
    }


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
    write_result(study, result, folder)


def write_result(study: Study, result: StudyResult, folder: Path) -> None:
    """Write the page and then the result, each file atomically."""
    write_whole(folder / README, study_page(study, result, changes(study, result)))
    write_whole(folder / RESULT, json.dumps(result.to_json(), indent=2) + "\n")

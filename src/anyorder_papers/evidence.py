"""Finds existing modules and stored results of studies for the catalogue.

It does not import the library or the studies, but looks up their files. Listing papers is therefore
fast and works without the extras of the studies.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from anyorder_papers.errors import PapersError

log = logging.getLogger("anyorder_papers")

STUDIES = "anyorder_studies"


@dataclass(frozen=True)
class Stored:
    """The parts of a study's stored result that the catalogue needs.

    Args:
        key: The study's key, the name of its folder.
        paper: Number of the paper in the catalogue; ``None`` if the result has none.
        verdict: The study's verdict on the paper's claims.
        seconds: Duration of the stored run.
        scale: Scale of the stored run.
        folder: Folder of the study, with its figure and page.
    """

    key: str
    paper: int | None
    verdict: str
    seconds: float | None
    scale: str
    folder: Path


def module_exists(name: str) -> bool:
    """Whether a module exists in its top-level package; nothing is imported."""
    top, *rest = name.split(".")
    if not all(part.isidentifier() for part in (top, *rest)):
        return False
    for root in _roots(top):
        place = root.joinpath(*rest)
        # A folder without __init__.py is a namespace package, not a usable module.
        if (place / "__init__.py").is_file() or (rest and place.with_suffix(".py").is_file()):
            return True
    return False


def study_exists(key: str) -> bool:
    """Whether a study with this key exists."""
    return any((root / key / "study.py").is_file() for root in _roots(STUDIES))


@cache
def results() -> Mapping[str, Stored]:
    """Return stored results of all studies by key; empty if the studies are not installed.

    They are read once per process. An invalid ``result.json`` is logged and does not affect the
    others.
    """
    found: dict[str, Stored] = {}
    for path in (path for root in _roots(STUDIES) for path in sorted(root.glob("*/result.json"))):
        try:
            found[path.parent.name] = read_result(path)
        except (PapersError, OSError) as error:
            log.warning("%s", error)
    return MappingProxyType(found)


def verdicts() -> dict[str, str]:
    """Return the verdict of each study that has a stored result, by study key.

    Verdicts are not part of the catalogue: they are read from ``result.json``, where the study
    stores them.
    """
    return {key: stored.verdict for key, stored in results().items()}


def read_result(path: Path) -> Stored:
    """Read a ``result.json``.

    Raises:
        PapersError: If it is not a study's result.
    """
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        verdict, paper = data["verdict"], data.get("paper")
        seconds, scale = data.get("seconds"), data.get("scale", "")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PapersError(
            f"{path.parent.name}/result.json: expected a study's result with a 'verdict' "
            f"({type(error).__name__}: {error}); run the study again"
        ) from error
    if not isinstance(verdict, str) or not (paper is None or isinstance(paper, int)):
        raise PapersError(
            f"{path.parent.name}/result.json: expected a text as verdict and a number as paper, "
            f"got {verdict!r} and {paper!r}"
        )
    return Stored(
        key=path.parent.name,
        paper=paper,
        verdict=verdict,
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
        scale=str(scale),
        folder=path.parent,
    )


def _roots(package: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        return []
    return [Path(root) for root in spec.submodule_search_locations]

"""What of the catalogue runs: modules that exist and stored results of studies.

Nothing here imports the library or the studies: files are looked up where the packages lie, so
that listing papers stays fast and works without the extras of the studies.
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
    """The stored result of a study, as far as the catalogue needs it.

    Args:
        key: The study's key, the name of its folder.
        paper: Number of the paper in the catalogue; ``None`` if the result does not say.
        verdict: What the measurements say about the paper's claims, as the study computed it.
        seconds: Duration of the stored run.
        scale: Scale of the stored run.
        folder: Where the study lies, with its figure and page.
    """

    key: str
    paper: int | None
    verdict: str
    seconds: float | None
    scale: str
    folder: Path


def module_exists(name: str) -> bool:
    """Whether a dotted module lies where its top-level package is; nothing is imported."""
    top, *rest = name.split(".")
    if not all(part.isidentifier() for part in (top, *rest)):
        return False
    for root in _roots(top):
        place = root.joinpath(*rest)
        # A folder without __init__.py is a namespace, not a module that one could use.
        if (place / "__init__.py").is_file() or (rest and place.with_suffix(".py").is_file()):
            return True
    return False


def study_exists(key: str) -> bool:
    """Whether there is a study of this key."""
    return any((root / key / "study.py").is_file() for root in _roots(STUDIES))


@cache
def results() -> Mapping[str, Stored]:
    """The stored results of all studies by key; empty where the studies are not installed.

    Read once in a process. A ``result.json`` that is not what a study writes is logged and hides
    no other.
    """
    found: dict[str, Stored] = {}
    for path in (path for root in _roots(STUDIES) for path in sorted(root.glob("*/result.json"))):
        try:
            found[path.parent.name] = read_result(path)
        except (PapersError, OSError) as error:
            log.warning("%s", error)
    return MappingProxyType(found)


def verdicts() -> dict[str, str]:
    """The verdict of each study that has a stored result, by study key.

    A verdict is never typed into the catalogue: it stands in the study's ``result.json``, where
    the study's own rule put it.
    """
    return {key: stored.verdict for key, stored in results().items()}


def read_result(path: Path) -> Stored:
    """Read a ``result.json``.

    Raises:
        PapersError: If it is not what a study writes.
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

"""The gallery: every stored figure with its verdict, null results as plainly as the rest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from anyorder.files import write_whole
from anyorder_studies.discovery import PACKAGE, Studies, discover
from anyorder_studies.gallery_page import gallery_page
from anyorder_studies.page import claimed, command, interval
from anyorder_studies.result import FIGURE, StudyResult, load_result
from anyorder_studies.study import Study, StudyError


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One study as a site shows it.

    Args:
        key: The study's key.
        paper: The paper's number in the catalogue; ``None`` for background.
        title: The study's title.
        verdict: The stored verdict.
        figure: Path of the stored SVG figure.
        claim: The central claim in words.
        claimed: Its size in numbers.
        measured: What was measured, with interval and repetitions.
        seconds: How long the run took.
        command: The command that runs it again.
        scale: The scale of the stored run.
    """

    key: str
    paper: int | None
    title: str
    verdict: str
    figure: Path
    claim: str
    claimed: str
    measured: str
    seconds: float
    command: str
    scale: str


@dataclass(frozen=True)
class Stored:
    """A study with its stored result; what every gallery is made of."""

    study: type[Study]
    result: StudyResult
    folder: Path


def stored_studies(studies: Studies) -> tuple[list[Stored], dict[str, str]]:
    """All studies with a stored result, by key; those without one are not part of it.

    Returns:
        The studies, and for each one that cannot be shown the reason: it is broken, or its stored
        result cannot be read or lacks one of its claims.
    """
    found: list[Stored] = []
    broken = dict(studies.broken)
    for key, study in studies.classes.items():
        try:
            result = load_result(studies.folders[key])
        except (StudyError, OSError) as error:
            broken[key] = str(error)
            continue
        if result is None:
            continue
        claimed_here = {claim.quantity for claim in study.claims}
        if claimed_here <= set(result.measurements) and len(study.claims) == len(result.statuses):
            found.append(Stored(study, result, studies.folders[key]))
        else:
            broken[key] = "the stored result does not hold the study's claims; run it again"
    return found, broken


def gallery(package: str = PACKAGE) -> list[Entry]:
    """What a gallery shows: all studies of :func:`stored_studies`."""
    return [entry_of(one) for one in stored_studies(discover(package))[0]]


def entry_of(one: Stored) -> Entry:
    """A study as a gallery shows it."""
    central, result = one.study.claims[0], one.result
    return Entry(
        key=one.study.key,
        paper=one.study.paper,
        title=one.study.title,
        verdict=str(result.verdict),
        figure=one.folder / FIGURE,
        claim=central.text,
        claimed=claimed(central),
        measured=interval(result.measurements[central.quantity]),
        seconds=result.seconds,
        command=command(result),
        scale=result.scale,
    )


def write_gallery(folder: Path, entries: list[Entry]) -> Path:
    """Write ``index.html`` with all figures inside; the page asks nothing of any server.

    Returns:
        The path of the page.
    """
    target = folder / "index.html"
    figures = [entry.figure.read_text(encoding="utf-8") for entry in entries]
    write_whole(target, gallery_page(entries, figures))
    return target

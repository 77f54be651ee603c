"""The gallery: every stored figure with its verdict, including null results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from anyorder.files import write_whole
from anyorder_studies.discovery import PACKAGE, Studies, discover
from anyorder_studies.gallery_page import gallery_page
from anyorder_studies.page import claimed, command, interval
from anyorder_studies.protocol import changes
from anyorder_studies.result import FIGURE, StudyResult, load_result
from anyorder_studies.study import Study, StudyError


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One study as shown in a gallery.

    Args:
        key: The study's key.
        paper: The paper's number in the catalogue; ``None`` for background.
        title: The study's title.
        verdict: The stored verdict.
        figure: Path of the stored SVG figure.
        claim: The central claim in words.
        claimed: The claimed effect size.
        measured: The measurement, with interval and repetitions.
        seconds: Duration of the run.
        command: The command that runs it again.
        scale: The scale of the stored run.
        change: How the study differs from the one that was run; empty if it does not.
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
    change: str = ""


@dataclass(frozen=True)
class Stored:
    """A study with its stored result."""

    study: type[Study]
    result: StudyResult
    folder: Path

    @property
    def change(self) -> str:
        """How the study differs from the one that was run; empty if it does not."""
        return str(changes(self.study(), self.result) or "")


def stored_studies(studies: Studies) -> tuple[list[Stored], dict[str, str]]:
    """Return all studies with a stored result, by key; studies without a result are omitted.

    Returns:
        The studies, and the reason for each one that cannot be shown: it is broken, or its stored
        result cannot be read.
    """
    found: list[Stored] = []
    broken = dict(studies.broken)
    for key, study in studies.classes.items():
        try:
            result = load_result(studies.folders[key])
        except (StudyError, OSError) as error:
            broken[key] = str(error)
            continue
        if result is not None:
            found.append(Stored(study, result, studies.folders[key]))
    return found, broken


def gallery(package: str = PACKAGE) -> list[Entry]:
    """Return the gallery entries of all studies of :func:`stored_studies`."""
    return [entry_of(one) for one in stored_studies(discover(package))[0]]


def entry_of(one: Stored) -> Entry:
    """Return the gallery entry of a study."""
    result = one.result
    central, _ = result.judged[0]
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
        change=one.change,
    )


def write_gallery(folder: Path, entries: list[Entry]) -> Path:
    """Write ``index.html`` with all figures embedded; the page makes no requests.

    Returns:
        The path of the page.
    """
    target = folder / "index.html"
    figures = [entry.figure.read_text(encoding="utf-8") for entry in entries]
    write_whole(target, gallery_page(entries, figures))
    return target

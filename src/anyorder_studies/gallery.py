"""The gallery: every stored figure with its verdict, null results as plainly as the rest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from anyorder.files import write_whole
from anyorder_studies.discovery import PACKAGE, discover
from anyorder_studies.gallery_page import gallery_page
from anyorder_studies.page import claimed, command, interval
from anyorder_studies.result import FIGURE, load_result


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


def gallery(package: str = PACKAGE) -> list[Entry]:
    """All studies with a stored result, by key; those without one are not part of it."""
    studies = discover(package)
    entries: list[Entry] = []
    for key, study in studies.classes.items():
        folder = studies.folders[key]
        result = load_result(folder)
        if result is None:
            continue
        central = study.claims[0]
        entries.append(
            Entry(
                key=key,
                paper=study.paper,
                title=study.title,
                verdict=str(result.verdict),
                figure=folder / FIGURE,
                claim=central.text,
                claimed=claimed(central),
                measured=interval(result.measurements[central.quantity]),
                seconds=result.seconds,
                command=command(result),
                scale=result.scale,
            )
        )
    return entries


def write_gallery(folder: Path, entries: list[Entry]) -> Path:
    """Write ``index.html`` with all figures inside; the page asks nothing of any server.

    Returns:
        The path of the page.
    """
    target = folder / "index.html"
    figures = [entry.figure.read_text(encoding="utf-8") for entry in entries]
    write_whole(target, gallery_page(entries, figures))
    return target

"""What the pages show: every paper with its study's result and the maths of its method."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from anyorder_papers.catalogue import TOPICS, Paper
from anyorder_papers.digest import Item
from anyorder_papers.evidence import module_exists
from anyorder_papers.site.maths import Formula, formulas
from anyorder_papers.store import all_papers

if TYPE_CHECKING:
    from anyorder_studies.discovery import Studies

log = logging.getLogger("anyorder_papers.site")

VERDICTS = ("reproduced", "partly", "not at this scale", "refuted")
NOT_RUN = "not run yet"
ARXIV = re.compile(r"\d{4}\.\d{4,5}|[a-z-]+(\.[A-Z]{2})?/\d{7}")
MODULE = re.compile(r"[a-z_]\w*(\.\w+)*", re.ASCII)


@dataclass(frozen=True)
class ClaimRow:
    """One claim beside its measurement, as text."""

    text: str
    claimed: str
    measured: str
    status: str
    source: str


@dataclass(frozen=True)
class StudyView:
    """A study's stored result, as the pages show it.

    Args:
        key: The study's key.
        paper: Number of the paper whose claims it measures; ``None`` for a background work.
        title: Its title.
        verdict: One of :data:`VERDICTS`, computed by the studies' rule.
        seconds: How long the run took.
        scale: Scale of the run.
        command: What runs it again.
        claims: The first is the central one.
        figure: The drawing, if there is one.
        need: What the full scale would need.
    """

    key: str
    paper: int | None
    title: str
    verdict: str
    seconds: float
    scale: str
    command: str
    claims: tuple[ClaimRow, ...]
    figure: Path | None = None
    need: str = ""

    @property
    def duration(self) -> str:
        """How long the run took, for a reader."""
        if self.seconds < 1:
            return "under 1 s"
        if self.seconds < 100:
            return f"{self.seconds:.0f} s"
        return f"{self.seconds / 60:.0f} min"


@dataclass(frozen=True)
class Entry:
    """One paper on the site.

    Args:
        paper: From the catalogue.
        studies: Results of the studies that measured it; the catalogue's own first.
    """

    paper: Paper
    studies: tuple[StudyView, ...] = ()

    @property
    def study(self) -> StudyView | None:
        """The result that the badges tell."""
        return self.studies[0] if self.studies else None

    @property
    def verdict(self) -> str:
        """The study's verdict, ``"not run yet"``, or nothing where there is no study."""
        if self.study is not None:
            return self.study.verdict
        return NOT_RUN if self.paper.study else ""

    @property
    def topic(self) -> str:
        """The topic's short name for a reader."""
        return topic_name(self.paper.topic)

    @property
    def year(self) -> str:
        """The heading under which the list has it."""
        return str(self.paper.when.year) if self.paper.when else "Without a date"

    @property
    def arxiv(self) -> str | None:
        """The arXiv number, if it has the form of one."""
        return self.paper.arxiv if ARXIV.fullmatch(self.paper.arxiv) else None

    @property
    def importable(self) -> str | None:
        """The line of Python that imports the paper's module, if that exists."""
        module = self.paper.module
        return f"import {module}" if MODULE.fullmatch(module) and module_exists(module) else None

    @cached_property
    def maths(self) -> tuple[Formula, ...]:
        """The formulas in the documentation of the paper's module."""
        return formulas(self.paper.module) if self.importable else ()


@dataclass(frozen=True)
class Library:
    """All entries, newest first, and the ways to find them."""

    entries: tuple[Entry, ...]
    by_id: dict[int, Entry] = field(init=False)
    studied: tuple[tuple[Entry, StudyView], ...] = field(init=False)
    figures: dict[str, Path] = field(init=False)

    def __post_init__(self) -> None:
        """Index the entries."""
        studied = tuple((entry, study) for entry in self.entries for study in entry.studies)
        figures = {study.key: study.figure for _, study in studied if study.figure}
        object.__setattr__(self, "by_id", {entry.paper.id: entry for entry in self.entries})
        object.__setattr__(self, "studied", studied)
        object.__setattr__(self, "figures", figures)

    @cached_property
    def papers(self) -> tuple[Paper, ...]:
        """The papers alone: always the same tuple, so that its search index is made once."""
        return tuple(entry.paper for entry in self.entries)

    def announced(self) -> dict[str, Item]:
        """Everything a digest can announce, by a key that is the same at the next run.

        A study whose verdict changes is announced again.
        """
        found: dict[str, Item] = {}
        for entry in self.entries:
            paper = entry.paper
            path = f"/paper/{paper.id}"
            title = " ".join(paper.title.split())
            found[f"paper:{paper.id}"] = Item(
                f"paper:{paper.id}", title, " ".join(paper.description.split()), path, "paper"
            )
            for study in entry.studies:
                key = f"study:{study.key}:{study.verdict}"
                text = ""
                if study.claims:
                    text = f"{study.claims[0].text} Measured: {study.claims[0].measured}."
                name = f"{study.verdict.capitalize()}: {study.title}"
                found[key] = Item(key, name, text, path, "study")
        return found


def topic_name(topic: str) -> str:
    """The short name of a topic for a reader."""
    return TOPICS.get(topic, topic).partition(":")[0]


def library(papers: Iterable[Paper], studies: Sequence[StudyView]) -> Library:
    """Join papers and study results; newest first, and by number within a day."""
    of_paper: defaultdict[int, list[StudyView]] = defaultdict(list)
    for study in studies:
        if study.paper is not None:
            of_paper[study.paper].append(study)
    entries: list[Entry] = []
    for paper in papers:
        own = sorted(of_paper[paper.id], key=lambda study: (study.key != paper.study, study.key))
        entries.append(Entry(paper, tuple(own)))
    entries.sort(key=lambda entry: _newest_first(entry.paper))
    return Library(tuple(entries))


def _newest_first(paper: Paper) -> tuple[int, int]:
    return (-paper.when.toordinal() if paper.when else 0, paper.id)


def load_library() -> Library:
    """Read the catalogue, the user's imported papers and the stored results of the studies."""
    from anyorder_studies.discovery import discover

    return library(all_papers(), study_views(discover()))


def study_views(studies: Studies) -> list[StudyView]:
    """The studies that have a stored result; a broken one is logged and hides no other."""
    from anyorder_studies.page import claimed, command, interval
    from anyorder_studies.result import FIGURE, load_result
    from anyorder_studies.study import StudyError

    for name, reason in studies.broken.items():
        log.warning("study %s cannot be shown: %s", name, reason)
    views: list[StudyView] = []
    for key, study in studies.classes.items():
        folder = studies.folders[key]
        try:
            result = load_result(folder)
            if result is None:
                continue
            rows = tuple(
                ClaimRow(
                    claim.text,
                    claimed(claim),
                    interval(result.measurements[claim.quantity]),
                    str(status),
                    claim.source,
                )
                for claim, status in zip(study.claims, result.statuses, strict=True)
            )
        except (StudyError, OSError, ValueError, KeyError) as error:
            log.warning("study %s cannot be shown: %s: %s", key, type(error).__name__, error)
            continue
        figure = folder / FIGURE
        views.append(
            StudyView(
                key=key,
                paper=result.paper,
                title=study.title,
                verdict=str(result.verdict),
                seconds=result.seconds,
                scale=result.scale,
                command=command(result),
                claims=rows,
                figure=figure if figure.is_file() else None,
                need=str(study.scales["full"]["need"]),
            )
        )
    return views

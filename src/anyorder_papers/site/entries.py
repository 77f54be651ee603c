"""The entries of the site: every paper with its study's result and its method's formulas."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from anyorder_papers.abstracts import read_abstracts
from anyorder_papers.catalogue import TOPICS, Paper, Work, background
from anyorder_papers.digest import Item
from anyorder_papers.evidence import module_exists
from anyorder_papers.site.maths import Formula, formulas
from anyorder_papers.store import all_papers

if TYPE_CHECKING:
    from anyorder_studies.discovery import Studies
    from anyorder_studies.gallery import Stored

log = logging.getLogger("anyorder_papers.site")

VERDICTS = ("reproduced", "partly", "not at this scale", "refuted")
NOT_RUN = "not run yet"
UNDATED = "undated"
NOTHING: Mapping[int, str] = MappingProxyType({})
ARXIV = re.compile(r"\d{4}\.\d{4,5}|[a-z-]+(\.[A-Z]{2})?/\d{7}")
MODULE = re.compile(r"[a-z_]\w*(\.\w+)*", re.ASCII)


@dataclass(frozen=True)
class ClaimRow:
    """One claim and its measurement, as text."""

    text: str
    claimed: str
    measured: str
    status: str
    source: str


@dataclass(frozen=True)
class StudyView:
    """A study's stored result, as shown on pages.

    Args:
        key: The study's key.
        paper: Number of the paper whose claims it measures; ``None`` for background work.
        title: Its title.
        verdict: One of :data:`VERDICTS`, computed by the studies' rule.
        seconds: Duration of the run.
        scale: Scale of the run.
        command: The command that runs it again.
        claims: The first is the central one.
        figure: The figure, if there is one.
        need: The resources that the full scale would need.
        work: The measured work, if it is not a paper of the catalogue.
        change: How the study differs from the one that was run; empty if it does not.
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
    work: Work | None = None
    change: str = ""

    @property
    def duration(self) -> str:
        """Duration of the run, as text."""
        if self.seconds < 1:
            return "under 1 s"
        if self.seconds < 100:
            return f"{self.seconds:.0f} s"
        return f"{self.seconds / 60:.0f} min"


@dataclass(frozen=True)
class Entry:
    """One paper on the site.

    Args:
        paper: The paper in the catalogue.
        studies: Results of the studies that measured it; the catalogue's study first.
        abstract: Its abstract, if a listing or an import has one.
    """

    paper: Paper
    studies: tuple[StudyView, ...] = ()
    abstract: str = ""

    @property
    def study(self) -> StudyView | None:
        """The result shown by the badges."""
        return self.studies[0] if self.studies else None

    @property
    def verdict(self) -> str:
        """The study's verdict, ``"not run yet"``, or empty if there is no study."""
        if self.study is not None:
            return self.study.verdict
        return NOT_RUN if self.paper.study else ""

    @property
    def topic(self) -> str:
        """The topic's short display name."""
        return topic_name(self.paper.topic)

    @property
    def year(self) -> str:
        """Its heading in the list."""
        return str(self.paper.when.year) if self.paper.when else "Without a date"

    @property
    def arxiv(self) -> str | None:
        """The arXiv number, if it is well-formed."""
        return self.paper.arxiv if ARXIV.fullmatch(self.paper.arxiv) else None

    @property
    def month(self) -> str:
        """Its anchor in the list by date: ``2025-11``, or ``undated``."""
        return f"{self.paper.when:%Y-%m}" if self.paper.when else UNDATED

    @property
    def importable(self) -> str | None:
        """The Python statement that imports the paper's module, if it exists."""
        module = self.paper.module
        return f"import {module}" if MODULE.fullmatch(module) and module_exists(module) else None

    @cached_property
    def maths(self) -> tuple[Formula, ...]:
        """The formulas in the docstrings of the paper's module."""
        return formulas(self.paper.module) if self.importable else ()


@dataclass(frozen=True)
class Library:
    """All entries, newest first, with indexes.

    Args:
        entries: The papers.
        others: Results of studies of background works, by key.
    """

    entries: tuple[Entry, ...]
    others: Mapping[str, StudyView] = field(default_factory=dict[str, StudyView])
    by_id: dict[int, Entry] = field(init=False)
    #: Every study with the path of its page.
    studied: tuple[tuple[str, StudyView], ...] = field(init=False)
    figures: dict[str, Path] = field(init=False)

    def __post_init__(self) -> None:
        """Index the entries."""
        studied = (
            *((f"paper/{e.paper.id}", study) for e in self.entries for study in e.studies),
            *((f"study/{key}", study) for key, study in self.others.items()),
        )
        figures = {study.key: study.figure for _, study in studied if study.figure}
        object.__setattr__(self, "by_id", {entry.paper.id: entry for entry in self.entries})
        object.__setattr__(self, "studied", studied)
        object.__setattr__(self, "figures", figures)

    @cached_property
    def papers(self) -> tuple[Paper, ...]:
        """The papers; always the same tuple, so that its search index is built once."""
        return tuple(entry.paper for entry in self.entries)

    def neighbours(self, entry: Entry) -> tuple[Entry | None, Entry | None]:
        """The entries before (newer) and after (older) an entry, by date."""
        place = self._places[entry.paper.id]
        newer = self.entries[place - 1] if place else None
        return newer, next(iter(self.entries[place + 1 : place + 2]), None)

    @cached_property
    def _places(self) -> dict[int, int]:
        return {entry.paper.id: place for place, entry in enumerate(self.entries)}

    def announced(self) -> dict[str, Item]:
        """Return all items that a digest can announce, by a key that is stable across runs.

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
        for page, study in self.studied:
            key = f"study:{study.key}:{study.verdict}"
            text = ""
            if study.claims:
                text = f"{study.claims[0].text} Measured: {study.claims[0].measured}."
            name = f"{study.verdict.capitalize()}: {study.title}"
            found[key] = Item(key, name, text, f"/{page}", "study")
        return found


def topic_name(topic: str) -> str:
    """The short display name of a topic."""
    return TOPICS.get(topic, topic).partition(":")[0]


def library(
    papers: Iterable[Paper], studies: Sequence[StudyView], abstracts: Mapping[int, str] = NOTHING
) -> Library:
    """Combine papers, study results and abstracts; newest first, and by number within a day."""
    of_paper: defaultdict[int | None, list[StudyView]] = defaultdict(list)
    for study in studies:
        of_paper[study.paper].append(study)
    entries: list[Entry] = []
    for paper in papers:
        own = of_paper.pop(paper.id, [])
        own.sort(key=lambda study, key=paper.study: (study.key != key, study.key))
        entries.append(Entry(paper, tuple(own), abstracts.get(paper.id, paper.abstract)))
    entries.sort(key=lambda entry: _newest_first(entry.paper))
    others = sorted((study for left in of_paper.values() for study in left), key=lambda s: s.key)
    return Library(tuple(entries), {study.key: study for study in others})


def _newest_first(paper: Paper) -> tuple[int, int]:
    return (-paper.when.toordinal() if paper.when else 0, paper.id)


def load_library(listings: Path | None = None) -> Library:
    """Read the catalogue, the user's imported papers and the stored results of the studies.

    Args:
        listings: Folder of listings with the catalogue's abstracts.

    Raises:
        ListingError: If the folder contains no listings, or one cannot be parsed.
    """
    from anyorder_studies.discovery import discover

    abstracts = read_abstracts(listings) if listings else {}
    return library(all_papers(), study_views(discover()), abstracts)


def study_views(studies: Studies) -> list[StudyView]:
    """The studies of the gallery; one that cannot be shown is logged and skipped."""
    from anyorder_studies.gallery import stored_studies

    found, broken = stored_studies(studies)
    for name, reason in broken.items():
        log.warning("study %s cannot be shown: %s", name, reason)
    works = background()
    return [_view(one, works.get(one.study.key)) for one in found]


def _view(one: Stored, work: Work | None) -> StudyView:
    from anyorder_studies.page import claimed, command, interval
    from anyorder_studies.result import FIGURE

    study, result = one.study, one.result
    rows = tuple(
        ClaimRow(
            claim.text,
            claimed(claim),
            interval(result.measurements[claim.quantity]),
            str(status),
            claim.source,
        )
        for claim, status in result.judged
    )
    figure = one.folder / FIGURE
    return StudyView(
        key=study.key,
        paper=study.paper,
        title=study.title,
        verdict=str(result.verdict),
        seconds=result.seconds,
        scale=result.scale,
        command=command(result),
        claims=rows,
        figure=figure if figure.is_file() else None,
        need=str(study.scales["full"]["need"]),
        work=work,
        change=one.change,
    )

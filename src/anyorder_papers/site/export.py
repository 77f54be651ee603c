"""The site as static files: every page, and an index for searching in the browser."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyorder.errors import AnyOrderError
from anyorder_papers.catalogue import Paper
from anyorder_papers.search import WEIGHTS, searched
from anyorder_papers.site.entries import Library
from anyorder_papers.site.listing import (
    FILTERS,
    WEAKEST,
    Query,
    by_date,
    choices,
    listing,
    verdict_choices,
)
from anyorder_papers.site.render import STATIC, Links, render
from anyorder_papers.words import STOP, thesaurus, tokens

# Marks a folder that may be cleared.
MARK = ".anyorder-papers"


class ExportError(AnyOrderError, OSError):
    """The folder cannot be written, or contains other files."""


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    pages: int
    files: int


def export(library: Library, folder: Path) -> Exported:
    """Write the site to a folder; an earlier export is replaced.

    Args:
        library: What is shown.
        folder: Output folder, created if needed.

    Raises:
        ExportError: If the folder contains anything but an earlier export, or cannot be written.
    """
    try:
        _clear(folder)
        return _write(library, folder)
    except OSError as error:
        if isinstance(error, ExportError):
            raise
        raise ExportError(f"cannot write to {folder} ({error.strerror})") from None


def search_index(papers: tuple[Paper, ...]) -> dict[str, Any]:
    """Return the index for ranking papers in the browser as on the server.

    Returns:
        ``terms``: for each stem, its papers with the stem's BM25F weight in each;
        ``stems``: the stem of each word in the catalogue; ``stop``: words without weight;
        ``related``: for each phrase of the thesaurus, its related stems; ``relatedWeight``: their
        weight; ``weakest``: the fraction of the best score below which papers are dropped.
    """
    texts = {paper.id: searched(paper) for paper in papers}
    lengths = Counter[str]()
    counts: dict[int, dict[str, Counter[str]]] = {}
    for number, fields in texts.items():
        counts[number] = {name: Counter(tokens(text)) for name, text in fields.items()}
        lengths.update({name: found.total() for name, found in counts[number].items()})
    weighted: dict[str, dict[int, float]] = {}
    for number, fields in counts.items():
        for name, found in fields.items():
            spread = found.total() * len(papers) / max(1, lengths[name])
            scale = WEIGHTS.fields[name] / (1 - WEIGHTS.length + WEIGHTS.length * spread)
            for term, count in found.items():
                row = weighted.setdefault(term, {})
                row[number] = row.get(number, 0.0) + scale * count
    surfaces = {
        word
        for fields in texts.values()
        for text in fields.values()
        for word in re.findall(r"\w+", text.casefold())
    }
    stems = {word: found[0] for word in surfaces if len(found := tokens(word)) == 1}
    return {
        "terms": {term: _saturated(row, len(papers)) for term, row in sorted(weighted.items())},
        "stems": dict(sorted(stems.items())),
        "stop": sorted(STOP),
        "related": {" ".join(phrase): sorted(found) for phrase, found in thesaurus().items()},
        "relatedWeight": WEIGHTS.related,
        "weakest": WEAKEST,
    }


def _saturated(row: dict[int, float], total: int) -> list[list[float]]:
    idf = math.log(1 + (total - len(row) + 0.5) / (len(row) + 0.5))
    return [[number, round(idf * t / (WEIGHTS.saturation + t), 4)] for number, t in row.items()]


def _clear(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ExportError(f"expected a folder to write to, {folder} is a file")
    if not any(folder.iterdir()):
        return
    if not (folder / MARK).is_file():
        raise ExportError(
            f"{folder} contains something that is not an earlier export; choose an empty folder"
        )
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


def _write(library: Library, folder: Path) -> Exported:
    for name in ("paper", "study", "figures"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text("made by: anyorder papers export\n", encoding="utf-8")
    shutil.copytree(STATIC, folder / "static", dirs_exist_ok=True)
    for key, figure in library.figures.items():
        shutil.copyfile(figure, folder / "figures" / f"{key}{figure.suffix}")
    index = json.dumps(search_index(library.papers), ensure_ascii=False, separators=(",", ":"))
    (folder / "index.json").write_text(index, encoding="utf-8")

    shared: dict[str, Any] = {"votes": {}, "mine": (), "csrf": "", "back": "", "mail": False}
    top, below = Links("", exported=True), Links("../", exported=True)
    pages = {
        "index.html": render(
            "home.html",
            top,
            query=Query(),
            listing=listing(library.entries, Query(), per_page=None),
            choices={name: choices(library.entries, name) for name in FILTERS},
            total=len(library.entries),
            **shared,
        ),
        "gallery.html": render(
            "gallery.html",
            top,
            studied=library.studied,
            wanted="",
            verdicts=verdict_choices(library),
            **shared,
        ),
        "dates.html": render("dates.html", top, years=by_date(library.entries), **shared),
    }
    for entry in library.entries:
        pages[f"paper/{entry.paper.id}.html"] = render(
            "paper.html", below, entry=entry, neighbours=library.neighbours(entry), **shared
        )
    for key, study in library.others.items():
        pages[f"study/{key}.html"] = render("study.html", below, study=study, **shared)
    for name, html in pages.items():
        (folder / name).write_text(html, encoding="utf-8")
    return Exported(len(pages), sum(1 for path in folder.rglob("*") if path.is_file()))

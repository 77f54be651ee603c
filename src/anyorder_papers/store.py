"""Imported papers, stored in a TOML file in the user's data folder."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from pathlib import Path

from anyorder.files import write_whole
from anyorder_papers.arxiv import Preprint
from anyorder_papers.catalogue import FIRST_OWN_ID, NEW, UNSORTED, Paper, load, read_file
from anyorder_papers.errors import PapersError
from anyorder_papers.listing import Merged, same_title

HOME = "ANYORDER_HOME"

# In the order of the file.
_WRITTEN = (
    "id", "title", "arxiv", "date", "authors", "listed_count", "listings", "topic", "order",
    "description", "abstract", "module", "study", "state", "kind",
)  # fmt: skip


def home() -> Path:
    """Return the user's data folder: ``ANYORDER_HOME``, or else the platform's default."""
    own = os.environ.get(HOME)
    if own:
        try:
            return Path(own).expanduser()
        except RuntimeError as error:
            raise PapersError(f"expected a folder in {HOME}, got {own!r} ({error})") from None
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "anyorder"


def own_file() -> Path:
    """Return the path of the user's imported papers; the file may not exist."""
    return home() / "papers.toml"


def votes_file() -> Path:
    """Return the path of the site's embedded database; the file may not exist."""
    return home() / "papers.sqlite3"


def own_papers() -> tuple[Paper, ...]:
    """Return the user's imported papers.

    Raises:
        CatalogueError: If the file is damaged; the message names it.
    """
    path = own_file()
    return read_file(path) if path.exists() else ()


def all_papers() -> tuple[Paper, ...]:
    """Return the papers of the catalogue, followed by the user's imported papers."""
    return (*load(), *own_papers())


def add(found: Iterable[Merged | Preprint]) -> tuple[tuple[Paper, ...], tuple[Paper, ...]]:
    """Add papers to the user's file, except those that are already known.

    Papers are identified by arXiv number, or by title, ignoring spelling and punctuation.

    Args:
        found: Papers of a listing or a feed.

    Returns:
        The added papers, and the known papers of the catalogue or the user's file.
    """
    own = list(own_papers())
    known = {key: paper for paper in (*load(), *own) for key in _keys(paper)}
    number = max([FIRST_OWN_ID - 1, *(paper.id for paper in own)])
    added: list[Paper] = []
    met: list[Paper] = []
    for item in found:
        paper = _own(item, number + 1)
        again = next((known[key] for key in _keys(paper) if key in known), None)
        if again is not None:
            met.append(again)
            continue
        number += 1
        added.append(paper)
        known.update(dict.fromkeys(_keys(paper), paper))
    if added:
        write_whole(own_file(), dump([*own, *added]))
    return tuple(added), tuple(met)


def dump(papers: Iterable[Paper]) -> str:
    """Format papers as TOML in the catalogue's format, without empty fields."""
    parts: list[str] = []
    for paper in papers:
        # The file stores the claimed state; the actual one is computed at every load.
        row = replace(paper, state=paper.claimed)
        lines = [
            f"{name} = {_toml(getattr(row, name))}"
            for name in _WRITTEN
            if getattr(row, name) not in (None, "") or name == "description"
        ]
        parts.append("\n".join(["[[paper]]", *lines]) + "\n")
    return "\n".join(parts)


def _keys(paper: Paper) -> list[str]:
    # A title in another script has an empty plain form; then the title itself is the key.
    title = same_title(paper.title) or paper.title
    return [f"title:{title}", *([f"arxiv:{paper.arxiv}"] if paper.arxiv else [])]


def _own(item: Merged | Preprint, number: int) -> Paper:
    listed = isinstance(item, Merged)
    return Paper(
        id=number,
        title=_plain(item.title),
        topic=UNSORTED,
        order="none",
        description="",
        listings=item.listings if listed else (),
        state=NEW,
        claimed=NEW,
        arxiv="" if listed else item.id,
        date=item.date,
        authors=item.authors,
        listed_count=item.listed_count if listed else None,
        abstract=_plain(item.abstract),
    )


def _plain(text: str) -> str:
    """One line without control characters, which TOML forbids and terminals interpret."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _toml(value: int | str | date | tuple[str, ...]) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        # A JSON string is a TOML basic string, except for DEL, which only TOML escapes.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return value.isoformat() if isinstance(value, date) else str(value)

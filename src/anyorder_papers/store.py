"""Papers that a user imported: a TOML file in the user's own data folder, never in the package."""

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

# In the order in which they stand in a file.
_WRITTEN = (
    "id", "title", "arxiv", "date", "authors", "listed_count", "listings", "topic", "order",
    "description", "abstract", "module", "study", "state", "kind",
)  # fmt: skip


def home() -> Path:
    """The user's data folder: ``ANYORDER_HOME``, or else where the platform keeps such data."""
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
    """The file with the user's imported papers; it need not exist."""
    return home() / "papers.toml"


def votes_file() -> Path:
    """The embedded database in which the site counts votes; it need not exist."""
    return home() / "papers.sqlite3"


def own_papers() -> tuple[Paper, ...]:
    """The user's imported papers.

    Raises:
        CatalogueError: If the file is damaged; the message names it.
    """
    path = own_file()
    return read_file(path) if path.exists() else ()


def all_papers() -> tuple[Paper, ...]:
    """The shipped catalogue and, after it, the user's imported papers."""
    return (*load(), *own_papers())


def add(found: Iterable[Merged | Preprint]) -> tuple[tuple[Paper, ...], tuple[Paper, ...]]:
    """Add papers to the user's file, leaving out those that are known already.

    A paper is known by its arXiv number, or by its title where spelling and punctuation do not
    count.

    Args:
        found: What a listing or a feed held.

    Returns:
        The papers added, and those of the catalogue or the user's file that were met again.
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
    """The papers as TOML in the catalogue's form, leaving out fields that have no value."""
    parts: list[str] = []
    for paper in papers:
        # The claim is what a file holds; the state is worked out again at every load.
        row = replace(paper, state=paper.claimed)
        lines = [
            f"{name} = {_toml(getattr(row, name))}"
            for name in _WRITTEN
            if getattr(row, name) not in (None, "") or name == "description"
        ]
        parts.append("\n".join(["[[paper]]", *lines]) + "\n")
    return "\n".join(parts)


def _keys(paper: Paper) -> list[str]:
    # A title in another script leaves nothing of itself in the plain form; then it is its own key.
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
    """One line without control characters, which TOML forbids and a terminal would obey."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _toml(value: int | str | date | tuple[str, ...]) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        # A JSON string is a TOML basic string, except for DEL, which only TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return value.isoformat() if isinstance(value, date) else str(value)

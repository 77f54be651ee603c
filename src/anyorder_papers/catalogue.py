"""The catalogue: one frozen :class:`Paper` for each entry of ``papers.toml``.

Titles, dates, numbers of authors and listings were parsed from saved listings; descriptions,
topics, orders and modules are ours. The *state* of a paper is computed when the catalogue is
loaded; see :func:`state_of`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from anyorder_papers.errors import PapersError
from anyorder_papers.evidence import Stored, module_exists, results, verdicts

__all__ = [
    "KINDS",
    "NEW",
    "ORDERS",
    "STATES",
    "TOPICS",
    "UNSORTED",
    "CatalogueError",
    "Paper",
    "Work",
    "background",
    "get",
    "listing_days",
    "load",
    "parse",
    "state_of",
    "study_of",
    "verdict_of",
    "verdicts",
]

TOPICS: Mapping[str, str] = MappingProxyType(
    {
        "zeroth": "Optimisers without gradients: zeroth order, values or rankings only",
        "first": "Optimisers with gradients: first order",
        "second": "Optimisers with curvature: second order",
        "bilevel": "Bilevel optimisation and architecture search",
        "blackbox": "Black-box search: Bayesian, evolutionary, by program or by particles",
        "distributed": "Distributed, federated and fault-tolerant training",
        "compression": "Compression: pruning, quantisation, distillation",
        "losses": "Losses, information and several objectives at once",
        "preference": "Preferences and reinforcement learning",
        "sampling": "Diffusion samplers",
        "structure": "Transport, experts, attention, sets and causal graphs",
        "scaling": "Scaling laws and the order of data",
        "logic": "Logic, programs and reasoning about minds",
        "graphs": "Graphs and recommendation",
        "science": "Physics, chemistry, astronomy, finance and signals",
        "vision": "Vision, sound and documents",
        "language": "Text, agents and simulated people",
    }
)
ORDERS: Mapping[str, str] = MappingProxyType(
    {
        "rank": "comparisons of candidates",
        "0": "values of the objective",
        "1": "gradients, or a score such as a diffusion model's",
        "2": "curvature",
        "higher": "more than second order: a derivative, a solver, a statistic, an interaction",
        "none": "order does not apply to the paper's method (a loss, a logic, a review)",
    }
)
STATES: Mapping[str, str] = MappingProxyType(
    {
        "works": "its module exists and its study has a stored result",
        "partly": "its module or its study's result is missing, or only a part of it is built",
        "planned": "no module and no result yet",
        "no system": "a review, a measurement or a theory: nothing to run",
    }
)
KINDS = ("review", "measurement", "theory")
# For imported papers, which are not classified.
UNSORTED, NEW = "unsorted", "new"
FIRST_OWN_ID = 1001

_ARXIV = re.compile(r"(\d{2})(\d{2})\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/(\d{2})(\d{2})\d{3}")


class CatalogueError(PapersError):
    """An invalid entry of the catalogue; the message names the paper."""


@dataclass(frozen=True)
class Paper:
    """One paper.

    Args:
        id: Its number: 1 to 133 in the catalogue, from 1001 on for imported papers.
        title: Its title.
        topic: A key of :data:`TOPICS` (or ``"unsorted"`` for an imported paper).
        order: A key of :data:`ORDERS`: the information that the paper's method uses.
        description: Its purpose and audience, in our own words; may be empty if imported.
        listings: Keys of the listings that contain it.
        state: A key of :data:`STATES` (or ``"new"``), computed by :func:`state_of`.
        claimed: The state in the entry.
        kind: For ``no system``: one of :data:`KINDS`; otherwise empty.
        module: Dotted name of its module; empty if there is none.
        study: Key of its study; empty if there is none.
        arxiv: Its arXiv number without version; empty if unknown.
        date: Its date; ``None`` if no listing has it.
        authors: Number of authors; ``None`` if unknown.
        listed_count: A small number in some listings, of unknown meaning.
        abstract: Only for imported papers whose source has one. Abstracts of the catalogue's papers
            are not part of the package; ``anyorder_papers.abstracts`` reads them from listings.
    """

    id: int
    title: str
    topic: str
    order: str
    description: str
    listings: tuple[str, ...]
    state: str
    claimed: str
    kind: str = ""
    module: str = ""
    study: str = ""
    arxiv: str = ""
    date: date | None = None
    authors: int | None = None
    listed_count: int | None = None
    abstract: str = ""

    @property
    def url(self) -> str:
        """URL of its abstract page on arXiv; empty if its number is unknown."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""

    @property
    def month(self) -> date | None:
        """First day of the month in its arXiv number, which is that of its submission."""
        match = _ARXIV.fullmatch(self.arxiv)
        if match is None:
            return None
        year, month = int(match[1] or match[3]), int(match[2] or match[4])
        # arXiv numbers have two-digit years, from 1991 on.
        return date(year + (1900 if year > 90 else 2000), month, 1)

    @property
    def when(self) -> date | None:
        """Its date, or else the month in its arXiv number; used for sorting."""
        return self.date or self.month

    @property
    def shown_date(self) -> str:
        """Its date as ``2023-06-02``; ``2023-06`` if only the month is known; otherwise empty."""
        if self.date is not None:
            return self.date.isoformat()
        return f"{self.month:%Y-%m}" if self.month else ""


def state_of(
    claimed: str, *, module: str, study: str, stored: Iterable[str], paper: int | None = None
) -> str:
    """Compute the state of a paper from its module and stored result.

    The state is ``works`` if its module exists and its study has a stored result, ``partly`` with
    one of the two, ``planned`` with neither. If the catalogue says ``partly``, a part of the paper
    is missing, and the state is ``partly`` even if both exist; ``no system`` and ``new`` do not
    change.

    Args:
        claimed: State in the catalogue.
        module: Dotted name of the module, or empty.
        study: Key of the study, or empty.
        stored: Keys of the studies with a stored result.
        paper: Number of the paper, for the message.

    Raises:
        CatalogueError: If ``claimed`` is not a state.
    """
    if claimed in ("no system", NEW):
        return claimed
    if claimed not in STATES:
        known = ", ".join(STATES)
        raise CatalogueError(f"paper {paper}: expected a state ({known}), got {claimed!r}")
    here = bool(module) and module_exists(module)
    measured = bool(study) and study in set(stored)
    if here and measured and claimed != "partly":
        return "works"
    return "partly" if here or measured else "planned"


@cache
def load() -> tuple[Paper, ...]:
    """Return the catalogue of this package, ordered by number.

    Raises:
        CatalogueError: If an entry is not valid; the message names it.
    """
    own = {key: stored for key, stored in results().items() if key not in background()}
    return parse(_document(), own)


def get(number: int, papers: Iterable[Paper] | None = None) -> Paper:
    """Return the paper with a number.

    Args:
        number: Its number.
        papers: Papers to search (default: the catalogue of this package).

    Raises:
        CatalogueError: If there is no such paper.
    """
    for paper in load() if papers is None else papers:
        if paper.id == number:
            return paper
    raise CatalogueError(
        f"there is no paper {number}: the catalogue has 1 to {len(load())}, imported papers start "
        f"at {FIRST_OWN_ID}"
    )


def study_of(paper: Paper) -> Stored | None:
    """Return the stored result of a paper's study; ``None`` if there is none."""
    return results().get(paper.study)


def verdict_of(paper: Paper) -> str:
    """Return the verdict of a paper's study; empty if there is none."""
    stored = study_of(paper)
    return stored.verdict if stored else ""


@dataclass(frozen=True)
class Work:
    """A background work that is not in the catalogue: title and arXiv number."""

    title: str
    arxiv: str

    @property
    def url(self) -> str:
        """URL of its abstract page on arXiv; empty if its number is unknown."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""


def background() -> Mapping[str, Work]:
    """Return works with a study but without a number in the catalogue, by the study's key."""
    entries = _document().get("background", [])
    return {entry["study"]: Work(entry["title"], entry.get("arxiv", "")) for entry in entries}


def listing_days() -> Mapping[str, date]:
    """Return the date of each listing used for the catalogue, by its key."""
    return dict(_document().get("listings", {}))


def parse(document: Mapping[str, Any], stored: Mapping[str, Stored]) -> tuple[Paper, ...]:
    """Convert a parsed TOML document to papers.

    Args:
        document: A document with an array ``paper``.
        stored: Stored results by study key. If a paper names no study, its study is the one whose
            result names the paper (the first by key, if there are several).

    Raises:
        CatalogueError: If an entry lacks a field, has an unknown field, or a value is invalid.
    """
    of_paper: dict[int, str] = {}
    for key in sorted(stored):
        number = stored[key].paper
        if number is not None:
            of_paper.setdefault(number, key)
    papers = tuple(_paper(entry, of_paper, stored) for entry in document.get("paper", []))
    numbers = [paper.id for paper in papers]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        raise CatalogueError(f"paper numbers must be unique; repeated: {twice}")
    return papers


def _document() -> dict[str, Any]:
    file = resources.files("anyorder_papers") / "papers.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def read_file(path: Path) -> tuple[Paper, ...]:
    """Read papers from a TOML file in the same format, e.g. a user's own.

    Raises:
        CatalogueError: If the file is not TOML or an entry is not valid.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path}: expected a TOML file of papers ({error})") from error
    return parse(document, {})


_TYPES: Mapping[str, type] = {
    "id": int,
    "authors": int,
    "listed_count": int,
    "date": date,
    "listings": list,
}
_NEEDED = ("id", "title", "topic", "order", "description", "listings", "state")


def _paper(
    entry: Mapping[str, Any], of_paper: Mapping[int, str], stored: Mapping[str, Stored]
) -> Paper:
    name = f"paper {entry.get('id', '?')}"
    known = {field.name for field in fields(Paper)} - {"claimed"}
    if not set(_NEEDED) <= set(entry) <= known:
        missing = ", ".join(key for key in _NEEDED if key not in entry)
        extra = ", ".join(sorted(set(entry) - known))
        raise CatalogueError(
            f"{name}: "
            + "; ".join(
                part
                for part in (
                    f"missing {missing}" if missing else "",
                    f"unknown field {extra} (known: {', '.join(sorted(known))})" if extra else "",
                )
                if part
            )
        )
    for key, value in entry.items():
        # Not isinstance: a datetime is also a date, and True is also an int.
        if type(value) is not _TYPES.get(key, str):
            expected = _TYPES.get(key, str).__name__
            raise CatalogueError(f"{name}: expected {key} as {expected}, got {value!r}")
    number, claimed = entry["id"], entry["state"]
    study = entry.get("study", "") or of_paper.get(number, "")
    state = state_of(
        claimed, module=entry.get("module", ""), study=study, stored=stored, paper=number
    )
    own: dict[str, Any] = {
        "listings": tuple(entry["listings"]),
        "study": study,
        "claimed": claimed,
        "state": state,
    }
    paper = Paper(**{**entry, **own})
    _check(paper, name)
    return paper


def _check(paper: Paper, name: str) -> None:
    own = paper.id >= FIRST_OWN_ID
    allowed = {
        "topic": (*TOPICS, *([UNSORTED] if own else [])),
        "order": tuple(ORDERS),
        "claimed": (*STATES, *([NEW] if own else [])),
        "kind": KINDS if paper.claimed == "no system" else ("",),
    }
    for field, values in allowed.items():
        if getattr(paper, field) not in values:
            label = "state" if field == "claimed" else field
            raise CatalogueError(
                f"{name}: expected {label} as one of {', '.join(map(repr, values))}, got "
                f"{getattr(paper, field)!r}"
            )
    if paper.id < 1 or not paper.title.strip():
        raise CatalogueError(f"{name}: expected a number from 1 on and a title")
    if not own and not paper.description.strip():
        raise CatalogueError(f"{name}: expected a description in one or two sentences")
    if paper.arxiv and not _ARXIV.fullmatch(paper.arxiv):
        raise CatalogueError(
            f"{name}: expected an arXiv number without version such as '2006.00719', got "
            f"{paper.arxiv!r}"
        )
    for field in ("authors", "listed_count"):
        value = getattr(paper, field)
        if value is not None and value < 1:
            raise CatalogueError(f"{name}: expected {field} from 1 on, got {value}")

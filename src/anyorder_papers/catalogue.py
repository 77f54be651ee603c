"""The catalogue: one frozen :class:`Paper` for each entry of ``papers.toml``.

Titles, days, numbers of authors and listings were parsed from the listings in which the papers
stood; descriptions, topics, orders and places in the code are ours. What *state* a paper is in is
worked out when the catalogue is loaded; see :func:`state_of`.
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
        "none": "the paper's method is no matter of order (a loss, a logic, a review)",
    }
)
STATES: Mapping[str, str] = MappingProxyType(
    {
        "works": "its module exists and its study has a stored result",
        "partly": "its module or its study's result is missing, or only a part of it is built",
        "planned": "neither a module nor a result yet",
        "no system": "a review, a measurement or a theory: nothing to run",
    }
)
KINDS = ("review", "measurement", "theory")
# For papers that a user imports: nobody has read them for the catalogue.
UNSORTED, NEW = "unsorted", "new"
FIRST_OWN_ID = 1001

_ARXIV = re.compile(r"(\d{2})(\d{2})\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/(\d{2})(\d{2})\d{3}")


class CatalogueError(PapersError):
    """An entry of the catalogue that is not valid; the message names the paper."""


@dataclass(frozen=True)
class Paper:
    """One paper.

    Args:
        id: Its number: 1 to 133 in the catalogue, from 1001 on for papers imported by a user.
        title: Its title.
        topic: A key of :data:`TOPICS` (or ``"unsorted"`` for an imported paper).
        order: A key of :data:`ORDERS`: what the paper's method takes from a problem.
        description: What it does and for whom, in our own words; may be empty if imported.
        listings: Keys of the listings in which it stood.
        state: A key of :data:`STATES` (or ``"new"``), worked out by :func:`state_of`.
        claimed: The state that the entry claims.
        kind: For ``no system``: one of :data:`KINDS`; else empty.
        module: Dotted path of its code; empty if there is none.
        study: Key of its study; empty if there is none.
        arxiv: Its arXiv number without version; empty if not known.
        date: Its day; ``None`` if no listing gives it.
        authors: Number of authors; ``None`` if not known.
        listed_count: The small number that some listings show; they do not say of what.
        abstract: Only for imported papers, where the source gave one. Never shipped; those of the
            catalogue's own papers are read where the listings lie (``anyorder_papers.abstracts``).
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
        """Address of its abstract page on arXiv; empty if its number is not known."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""

    @property
    def month(self) -> date | None:
        """First day of the month of its arXiv number, which tells when it was submitted."""
        match = _ARXIV.fullmatch(self.arxiv)
        if match is None:
            return None
        year, month = int(match[1] or match[3]), int(match[2] or match[4])
        # arXiv numbers have had two-digit years since 1991.
        return date(year + (1900 if year > 90 else 2000), month, 1)

    @property
    def when(self) -> date | None:
        """Its day, or else the month of its arXiv number: what sorting by date goes by."""
        return self.date or self.month

    @property
    def shown_date(self) -> str:
        """Its day as ``2023-06-02``; ``2023-06`` where only the month is known; else empty."""
        if self.date is not None:
            return self.date.isoformat()
        return f"{self.month:%Y-%m}" if self.month else ""


def state_of(
    claimed: str, *, module: str, study: str, stored: Iterable[str], paper: int | None = None
) -> str:
    """Work out the state of a paper from what exists.

    ``works`` if its module exists and its study has a stored result, ``partly`` with one of the
    two, ``planned`` with neither. A claim of ``partly`` says that a part of the paper is missing
    although both exist, and stays ``partly``; ``no system`` and ``new`` stay what they are.

    Args:
        claimed: State that the catalogue claims.
        module: Dotted path of the code, or empty.
        study: Key of the study, or empty.
        stored: Keys of the studies with a stored result.
        paper: Number of the paper, for the message.

    Raises:
        CatalogueError: If the claim is not a state.
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
    """The shipped catalogue, in the order of the papers' numbers.

    Raises:
        CatalogueError: If an entry is not valid; the message names it.
    """
    own = {key: stored for key, stored in results().items() if key not in background()}
    return parse(_document(), own)


def get(number: int, papers: Iterable[Paper] | None = None) -> Paper:
    """The paper of a number.

    Args:
        number: Its number.
        papers: Where to look; the shipped catalogue if left out.

    Raises:
        CatalogueError: If there is none.
    """
    for paper in load() if papers is None else papers:
        if paper.id == number:
            return paper
    raise CatalogueError(
        f"there is no paper {number}: the catalogue has 1 to {len(load())}, imported papers start "
        f"at {FIRST_OWN_ID}"
    )


def study_of(paper: Paper) -> Stored | None:
    """The stored result of a paper's study; ``None`` if there is none."""
    return results().get(paper.study)


def verdict_of(paper: Paper) -> str:
    """The verdict that its study computed; empty if there is none."""
    stored = study_of(paper)
    return stored.verdict if stored else ""


@dataclass(frozen=True)
class Work:
    """A work that the catalogue builds on without listing it: title and arXiv number."""

    title: str
    arxiv: str

    @property
    def url(self) -> str:
        """Address of its abstract page on arXiv; empty if its number is not known."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""


def background() -> Mapping[str, Work]:
    """Works that have a study but no number in the catalogue, by the study's key."""
    entries = _document().get("background", [])
    return {entry["study"]: Work(entry["title"], entry.get("arxiv", "")) for entry in entries}


def listing_days() -> Mapping[str, date]:
    """The day of each listing from which the catalogue was made, by its key."""
    return dict(_document().get("listings", {}))


def parse(document: Mapping[str, Any], stored: Mapping[str, Stored]) -> tuple[Paper, ...]:
    """Turn a parsed TOML document into papers.

    Args:
        document: With an array ``paper``.
        stored: Stored results by study key. Where a paper names no study, the one whose result
            names the paper is its study (the first by key, should there be several).

    Raises:
        CatalogueError: If an entry lacks a field, has an unknown one, or a value is not allowed.
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
        raise CatalogueError(f"paper numbers must be unique; given twice: {twice}")
    return papers


def _document() -> dict[str, Any]:
    file = resources.files("anyorder_papers") / "papers.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def read_file(path: Path) -> tuple[Paper, ...]:
    """Read papers from a TOML file of the same form, e.g. a user's own.

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
        # Not isinstance: a TOML time is also a date, and true is also a number.
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

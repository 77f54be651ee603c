"""Reads saved listings of a daily-papers page, and merges several into one list of papers.

A listing is plain text. Blocks are separated by blank lines: a heading that ends with the date of
the listing, then for each paper its title and abstract, and (on most pages) a byline of three
lines::

    Title of a paper

    Its abstract.

      • 4 authors
    ·
    Jun 2, 2023 2

The last line is a date, without the year if it is that of the listing, followed by a small number
of unknown meaning. If there is an organisation instead of the number of authors, the number is
unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from anyorder_papers.errors import PapersError

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
LONGEST_TITLE = 300  # characters; a longer "title" means that blocks are missing

_DATE = re.compile(rf"({'|'.join(MONTHS)}) (\d{{1,2}})(?:, (\d{{4}}))?(?: (\d+))?")
_AUTHORS = re.compile(r"• (\d+) authors?")
_SEPARATOR = "·"


class ListingError(PapersError):
    """A listing with an invalid format; the message gives the line."""


@dataclass(frozen=True)
class Entry:
    """One paper in one listing.

    Args:
        title: Its title.
        abstract: Its abstract, as printed.
        authors: Number of authors, if the listing has it.
        date: Its date, if the listing has it.
        count: The small number after the date, if there is one.
    """

    title: str
    abstract: str
    authors: int | None = None
    date: date | None = None
    count: int | None = None


@dataclass(frozen=True)
class Listing:
    """A parsed listing: its key, date and papers in order."""

    key: str
    date: date
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Merged:
    """One paper, merged from all listings that contain it.

    Args:
        title: Title as first printed.
        abstract: Abstract as first printed.
        authors: Number of authors; ``None`` if no listing has it.
        date: Date; ``None`` if no listing has it.
        listed_count: The small number, from the latest listing that has one.
        listings: Keys of the listings, in the order in which they were read.
    """

    title: str
    abstract: str
    authors: int | None
    date: date | None
    listed_count: int | None
    listings: tuple[str, ...]


@dataclass(frozen=True)
class _Block:
    line: int
    lines: list[str] = field(default_factory=list[str])

    @property
    def text(self) -> str:
        return " ".join(self.lines)

    @property
    def is_byline(self) -> bool:
        return _SEPARATOR in self.lines


def parse_listing(text: str, *, key: str, year: int | None = None) -> Listing:
    """Parse one listing.

    Args:
        text: The saved page.
        key: Short name of the listing, e.g. ``"000"``.
        year: Year of the listing; required if its heading has none.

    Returns:
        The listing with its papers in order.

    Raises:
        ListingError: If a block does not have the expected format, a date does not exist or is
            after that of the listing, or the year of the listing is unknown.
    """
    blocks = _blocks(text)
    start, day = _heading(blocks, key, year)
    entries: list[Entry] = []
    place = start
    while place < len(blocks):
        title = _text_block(blocks, place, key, "a title")
        if len(title) > LONGEST_TITLE:
            raise ListingError(
                f"listing {key}, line {blocks[place].line}: expected a title, got "
                f"{len(title)} characters that look like an abstract; the title above them may "
                "be missing"
            )
        abstract = _text_block(blocks, place + 1, key, f"the abstract of {title!r}")
        place += 2
        authors, when, count = None, None, None
        if place < len(blocks) and blocks[place].is_byline:
            authors, when, count = _byline(blocks[place], key, day)
            place += 1
        entries.append(Entry(title, abstract, authors, when, count))
    if not entries:
        raise ListingError(f"listing {key}: expected papers after the heading, found none")
    return Listing(key, day, tuple(entries))


def read_folder(folder: Path, years: Mapping[str, int] | None = None) -> list[Listing]:
    """Parse every ``*.txt`` file of a folder.

    The key of a listing is its file name up to the first ``_`` or ``.``. An ISO date in the name
    (``2025-12-10.txt``) sets the year.

    Args:
        folder: Folder with saved listings.
        years: Year by key, for listings whose heading has none; ``""`` is for all others.

    Returns:
        The listings, ordered by file name.

    Raises:
        ListingError: If the folder holds no listing, or one cannot be parsed.
    """
    paths = sorted(folder.glob("*.txt"))
    if not paths:
        raise ListingError(f"expected a folder with listings (*.txt), found none in {folder}")
    listings: list[Listing] = []
    for path in paths:
        key = re.split(r"[_.]", path.name, maxsplit=1)[0]
        year = (years or {}).get(key, (years or {}).get(""))
        iso = re.search(r"(?<!\d)(\d{4})-\d{2}-\d{2}(?!\d)", path.name)
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ListingError(f"{path.name}: expected UTF-8 text ({error})") from error
        listings.append(parse_listing(text, key=key, year=int(iso[1]) if iso else year))
    return listings


def merge(listings: Iterable[Listing]) -> tuple[Merged, ...]:
    """Merge listings: one entry per title, in order of first appearance.

    Raises:
        ListingError: If two listings disagree on the date or number of authors of a paper.
    """
    found: dict[str, list[tuple[Listing, Entry]]] = {}
    for listing in listings:
        for entry in listing.entries:
            found.setdefault(same_title(entry.title), []).append((listing, entry))
    return tuple(_merged(entries) for entries in found.values())


def same_title(title: str) -> str:
    """Normalise a title to letters and digits, so that different spellings are equal."""
    return re.sub(r"[^0-9a-z]+", " ", title.casefold()).strip()


def _merged(entries: list[tuple[Listing, Entry]]) -> Merged:
    first = entries[0][1]
    latest = sorted(entries, key=lambda pair: pair[0].date)
    counts = [entry.count for _, entry in latest if entry.count is not None]
    return Merged(
        title=first.title,
        abstract=first.abstract,
        authors=_agreed(entries, "authors"),
        date=_agreed(entries, "date"),
        listed_count=counts[-1] if counts else None,
        # A listing may contain a paper twice; dict keeps the order and drops the second.
        listings=tuple(dict.fromkeys(listing.key for listing, _ in entries)),
    )


def _agreed(entries: list[tuple[Listing, Entry]], name: str) -> Any:
    values = {getattr(entry, name) for _, entry in entries} - {None}
    if len(values) > 1:
        said = ", ".join(f"{listing.key}: {getattr(entry, name)}" for listing, entry in entries)
        raise ListingError(f"{entries[0][1].title!r}: the listings disagree on {name} ({said})")
    return next(iter(values), None)


def _blocks(text: str) -> list[_Block]:
    blocks: list[_Block] = []
    fresh = True
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped:
            fresh = True
            continue
        if fresh:
            blocks.append(_Block(number))
            fresh = False
        blocks[-1].lines.append(stripped)
    return blocks


def _heading(blocks: list[_Block], key: str, year: int | None) -> tuple[int, date]:
    """Index of the first block after the heading, and the date at the end of the heading."""
    for index, block in enumerate(blocks):
        match = _DATE.fullmatch(block.text)
        if match and not block.is_byline:
            own = int(match[3]) if match[3] else year
            if own is None:
                raise ListingError(
                    f"listing {key}: its heading says {block.text!r} without a year; give the "
                    f"year of the listing (--year {key}=YEAR), or put its day into the file's name"
                )
            return index + 1, _day(match, own, f"listing {key}, line {block.line}")
    raise ListingError(f"listing {key}: expected a heading that ends with a day such as 'Aug 1'")


def _text_block(blocks: list[_Block], place: int, key: str, what: str) -> str:
    if place >= len(blocks):
        raise ListingError(f"listing {key}: expected {what}, but the listing ends")
    block = blocks[place]
    if block.is_byline:
        raise ListingError(f"listing {key}, line {block.line}: expected {what}, got a byline")
    return block.text


def _byline(block: _Block, key: str, listed: date) -> tuple[int | None, date, int | None]:
    where = f"listing {key}, line {block.line}"
    if len(block.lines) != 3 or block.lines[1] != _SEPARATOR:
        raise ListingError(
            f"{where}: expected a byline of three lines (authors, {_SEPARATOR}, day), got "
            f"{block.lines}"
        )
    match = _DATE.fullmatch(block.lines[2])
    if match is None:
        raise ListingError(
            f"{where}: expected a day such as 'Jun 2, 2023' or 'Aug 1 4', got {block.lines[2]!r}"
        )
    when = _day(match, int(match[3]) if match[3] else listed.year, where)
    if when > listed:
        raise ListingError(
            f"{where}: {block.lines[2]!r} is read as {when}, after the listing's own day {listed}; "
            "is the listing's year right?"
        )
    authors = _AUTHORS.fullmatch(block.lines[0])
    return int(authors[1]) if authors else None, when, int(match[4]) if match[4] else None


def _day(match: re.Match[str], year: int, where: str) -> date:
    try:
        return date(year, MONTHS.index(match[1]) + 1, int(match[2]))
    except ValueError as error:
        raise ListingError(f"{where}: there is no day {match[1]} {match[2]}, {year}") from error

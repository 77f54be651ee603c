"""Listings are read block by block, and refused where a block is out of place."""

from __future__ import annotations

import os
import re
from datetime import date
from pathlib import Path

import pytest

from anyorder_papers.catalogue import load
from anyorder_papers.listing import (
    Entry,
    ListingError,
    merge,
    parse_listing,
    read_folder,
    same_title,
)

HEADING = "new\n\nGet the news!\n\nSubscribe\n\nThe page\n\n"

DATED = (
    HEADING
    + """Dec 10

Walking downhill in the fog

We walk.

  • 2 authors
·
Jun 1, 2020

A byline without a number of authors

Somebody's laboratory wrote this.

Some Laboratory Some Laboratory
·
Sep 30 2

The same year

This year's.

  • 1 authors
·
Aug 1
"""
)

BARE = (
    HEADING
    + """Aug 1

Walking Downhill -- in the fog

We walk.

Another, seen only here

No byline follows.
"""
)

# The listings' own headings give no year; these are the days on which they were taken.
YEARS = {"000": 2026, "001": 2025, "002": 2025, "003": 2025}


def seeds() -> Path:
    folder = os.environ.get("ANYORDER_SEEDS", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("ANYORDER_SEEDS names no folder with the seed listings")
    return Path(folder)


def test_entries_with_and_without_year_authors_and_count() -> None:
    listing = parse_listing(DATED, key="003", year=2025)
    assert listing.date == date(2025, 12, 10)
    assert listing.entries == (
        Entry("Walking downhill in the fog", "We walk.", 2, date(2020, 6, 1), None),
        Entry(
            "A byline without a number of authors",
            "Somebody's laboratory wrote this.",
            None,
            date(2025, 9, 30),
            2,
        ),
        Entry("The same year", "This year's.", 1, date(2025, 8, 1), None),
    )


def test_entries_without_bylines() -> None:
    listing = parse_listing(BARE, key="002", year=2025)
    assert [entry.title for entry in listing.entries] == [
        "Walking Downhill -- in the fog",
        "Another, seen only here",
    ]
    assert all((e.authors, e.date, e.count) == (None, None, None) for e in listing.entries)


def test_a_year_in_the_heading_wins() -> None:
    text = DATED.replace("Dec 10\n", "Dec 10, 2024\n").replace("Sep 30 2", "Sep 30, 2023 2")
    assert parse_listing(text, key="x", year=2025).date == date(2024, 12, 10)


def test_abstract_over_several_lines_becomes_one() -> None:
    text = DATED.replace("We walk.\n", "We\nwalk.\n")
    assert parse_listing(text, key="x", year=2025).entries[0].abstract == "We walk."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("Dec 10\n", ""), "heading that ends with a day|expected the abstract"),
        (("Aug 1\n", "Aug 32\n"), "no day Aug 32"),
        (("Aug 1\n", "Dec 11\n"), "after the listing's own day"),
        (("Aug 1\n", "Augustus 1\n"), "expected a day such as"),
        (("The same year\n\n", ""), "expected the abstract of"),
        (("We walk.\n\n", ""), "expected the abstract of .* got a byline"),
        (("Walking downhill in the fog", "x" * 301), "look like an abstract"),
        (("·\nAug 1", "·"), "byline of three lines"),
    ],
)
def test_out_of_step_is_refused(change: tuple[str, str], message: str) -> None:
    text = DATED.replace(*change)
    assert text != DATED
    with pytest.raises(ListingError, match=message):
        parse_listing(text, key="x", year=2025)


def test_missing_year_and_empty_listing() -> None:
    with pytest.raises(ListingError, match=r"--year x=YEAR"):
        parse_listing(DATED, key="x")
    with pytest.raises(ListingError, match="found none"):
        parse_listing(HEADING + "Aug 1\n", key="x", year=2025)


def test_merge_joins_spellings_and_keeps_the_first_order() -> None:
    merged = merge(
        [
            parse_listing(DATED, key="003", year=2025),
            parse_listing(BARE, key="002", year=2025),
        ]
    )
    assert [paper.listings for paper in merged] == [("003", "002"), ("003",), ("003",), ("002",)]
    assert merged[0].title == "Walking downhill in the fog"
    assert (merged[0].authors, merged[0].date) == (2, date(2020, 6, 1))


def test_merge_takes_the_latest_count_and_refuses_contradiction() -> None:
    later = parse_listing(DATED.replace("Sep 30 2", "Sep 30 5"), key="b", year=2025)
    earlier = parse_listing(DATED.replace("Dec 10", "Nov 10"), key="a", year=2025)
    assert merge([later, earlier])[1].listed_count == 5
    other = parse_listing(DATED.replace("2 authors", "3 authors"), key="c", year=2025)
    with pytest.raises(ListingError, match="disagree on authors"):
        merge([later, other])


def test_folder_takes_years_from_names_and_settings(tmp_path: Path) -> None:
    (tmp_path / "a_1.txt").write_text(DATED, encoding="utf-8")
    (tmp_path / "b-2024-08-01.txt").write_text(BARE, encoding="utf-8")
    (tmp_path / "notes.md").write_text("not a listing", encoding="utf-8")
    listings = read_folder(tmp_path, {"": 2025})
    assert [(listing.key, listing.date.year) for listing in listings] == [
        ("a", 2025),
        ("b-2024-08-01", 2024),
    ]
    with pytest.raises(ListingError, match="without a year"):
        read_folder(tmp_path, {"z": 2025})
    (tmp_path / "a_1.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ListingError, match="UTF-8"):
        read_folder(tmp_path)


def test_folder_without_listings(tmp_path: Path) -> None:
    with pytest.raises(ListingError, match="found none"):
        read_folder(tmp_path)


def test_same_title() -> None:
    assert same_title("Who's  Waldo?") == same_title("who s waldo")
    assert same_title("Part I") != same_title("Part II")


def test_catalogue_agrees_with_the_seed_listings() -> None:
    merged = merge(read_folder(seeds(), YEARS))
    papers = load()
    assert len(merged) == len(papers) == 133
    for number, (found, paper) in enumerate(zip(merged, papers, strict=True), 1):
        assert paper.id == number
        assert paper.title == found.title
        assert paper.date == found.date, paper.title
        assert paper.authors == found.authors, paper.title
        assert paper.listed_count == found.listed_count, paper.title
        assert paper.listings == found.listings, paper.title


def test_numbers_are_those_of_the_index() -> None:
    index = (seeds() / "INDEX.md").read_text(encoding="utf-8")
    rows = re.findall(r"^- \[(\d+)\] (.*) \(([\d,]+)\)$", index, re.MULTILINE)
    assert [(int(n), title, tuple(keys.split(","))) for n, title, keys in rows] == [
        (paper.id, paper.title, paper.listings) for paper in load()
    ]


def test_no_description_repeats_an_abstract() -> None:
    def runs(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"[a-z0-9]+", text.lower())
        return {tuple(words[i : i + 6]) for i in range(len(words) - 5)}

    abstracts = {
        run for paper in merge(read_folder(seeds(), YEARS)) for run in runs(paper.abstract)
    }
    repeated = {paper.id: runs(paper.description) & abstracts for paper in load()}
    assert not {number: found for number, found in repeated.items() if found}

"""Abstracts are read where the listings lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from anyorder_papers.abstracts import read_abstracts
from anyorder_papers.catalogue import load
from anyorder_papers.listing import ListingError


def test_papers_are_known_by_their_titles(tmp_path: Path) -> None:
    text = "Jan 1\n\n{}\n\nWe look\nat curvature.\n\nAnother paper\n\nIts abstract.\n"
    title = load()[15].title.upper().replace(":", " --")
    (tmp_path / "000.txt").write_text(text.format(title), encoding="utf-8")
    assert read_abstracts(tmp_path) == {16: "We look at curvature."}


def test_a_folder_without_listings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ListingError, match="found none"):
        read_abstracts(tmp_path)


def test_the_seed_listings_hold_the_abstract_of_every_paper() -> None:
    folder = os.environ.get("ANYORDER_SEEDS", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("ANYORDER_SEEDS names no folder with the seed listings")
    found = read_abstracts(Path(folder))
    assert set(found) == {paper.id for paper in load()}
    assert min(map(len, found.values())) > 100

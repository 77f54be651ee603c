"""Abstracts of the catalogue's papers, read from saved listings: the package contains none."""

from __future__ import annotations

from pathlib import Path

from anyorder_papers.catalogue import listing_days, load
from anyorder_papers.listing import merge, read_folder, same_title


def read_abstracts(folder: Path) -> dict[int, str]:
    """Return abstracts by paper number, for papers of the catalogue that are in the listings.

    Args:
        folder: Folder with saved listings (see :mod:`anyorder_papers.listing`).

    Raises:
        ListingError: If the folder contains no listings, or one cannot be parsed.
    """
    years = {key: day.year for key, day in listing_days().items()}
    printed = {same_title(m.title): m.abstract for m in merge(read_folder(folder, years))}
    keys = {paper.id: same_title(paper.title) for paper in load()}
    return {number: printed[key] for number, key in keys.items() if key in printed}

"""Quality of a ranking: normalised discounted cumulative gain over labelled queries."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


def ndcg(ranked: Sequence[int], grades: Mapping[int, int], depth: int = 5) -> float:
    """Normalised discounted cumulative gain (nDCG) at a depth.

    Gains are ``2^grade - 1``, discounts ``1/log2(rank + 1)``.

    Args:
        ranked: Items, best first, without duplicates.
        grades: Grade of each relevant item, 1 or more; all others have grade 0.
        depth: Number of items to evaluate, 1 or more.

    Returns:
        0 for a ranking without a relevant item in its first ``depth``, 1 for an ideal one.

    Raises:
        ValueError: If there is no relevant item, an item is repeated, or the depth is below 1.
    """
    if depth < 1:
        raise ValueError(f"expected a depth of 1 or more, got {depth}")
    if not any(grade > 0 for grade in grades.values()):
        raise ValueError("expected at least one item with a grade above 0")
    if len(set(ranked)) != len(ranked):
        raise ValueError("expected a ranking without repeated items")
    ideal = sorted(grades.values(), reverse=True)
    return _gain([grades.get(item, 0) for item in ranked], depth) / _gain(ideal, depth)


@dataclass(frozen=True)
class Query:
    """A labelled query.

    Args:
        text: What a user might type.
        grades: Grade of each relevant paper, 1 to 3, by number.
        held_out: Whether it was not used to tune the search.
    """

    text: str
    grades: Mapping[int, int]
    held_out: bool


def read_queries(path: Path) -> tuple[Query, ...]:
    """Read labelled queries from a TOML file with an array ``query``."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    return tuple(
        Query(
            text=entry["text"],
            grades={int(number): grade for number, grade in entry["expected"].items()},
            held_out=entry["held_out"],
        )
        for entry in document["query"]
    )


def mean_ndcg(
    queries: Sequence[Query], rank: Callable[[str], Sequence[int]], depth: int = 5
) -> float:
    """Mean nDCG of a search over labelled queries.

    Args:
        queries: At least one.
        rank: Returns the numbers of the papers for a text, best first.
        depth: Number of papers to evaluate.
    """
    if not queries:
        raise ValueError("expected at least one labelled query")
    return sum(ndcg(rank(query.text), query.grades, depth) for query in queries) / len(queries)


def _gain(grades: Sequence[int], depth: int) -> float:
    return sum((2**g - 1) / math.log2(rank + 2) for rank, g in enumerate(grades[:depth]))

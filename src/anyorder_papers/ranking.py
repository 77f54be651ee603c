"""How good a ranking is: normalised discounted cumulative gain over labelled questions."""

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
        ranked: Items, best first, none twice.
        grades: Grade of each relevant item, 1 or more; all others have grade 0.
        depth: How many items count, 1 or more.

    Returns:
        0 for a ranking without a relevant item in its first ``depth``, 1 for an ideal one.

    Raises:
        ValueError: If there is no relevant item, an item stands twice, or the depth is below 1.
    """
    if depth < 1:
        raise ValueError(f"expected a depth of 1 or more, got {depth}")
    if not any(grade > 0 for grade in grades.values()):
        raise ValueError("expected at least one item with a grade above 0")
    if len(set(ranked)) != len(ranked):
        raise ValueError("expected a ranking in which no item stands twice")
    ideal = sorted(grades.values(), reverse=True)
    return _gain([grades.get(item, 0) for item in ranked], depth) / _gain(ideal, depth)


@dataclass(frozen=True)
class Query:
    """A labelled question.

    Args:
        text: What a user might type.
        grades: Grade of each paper that answers it, 1 to 3, by number.
        held_out: Whether the search was never adjusted on it.
    """

    text: str
    grades: Mapping[int, int]
    held_out: bool


def read_queries(path: Path) -> tuple[Query, ...]:
    """Read labelled questions from a TOML file with an array ``query``."""
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
    """Mean nDCG of a search over labelled questions.

    Args:
        queries: At least one.
        rank: Numbers of the papers found for a text, best first.
        depth: How many of them count.
    """
    if not queries:
        raise ValueError("expected at least one labelled question")
    return sum(ndcg(rank(query.text), query.grades, depth) for query in queries) / len(queries)


def _gain(grades: Sequence[int], depth: int) -> float:
    return sum((2**g - 1) / math.log2(rank + 2) for rank, g in enumerate(grades[:depth]))

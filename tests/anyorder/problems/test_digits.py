"""Digits: split, model, and a target that AdamW reaches."""

from __future__ import annotations

import pytest
import torch

from anyorder.problems import ProblemError
from anyorder.problems.digits import Digits

pytest.importorskip("sklearn", reason="needs scikit-learn")


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


def test_split(digits):
    train, val, test = digits._parts
    assert [len(part.labels) for part in (train, val, test)] == [1197, 300, 300]
    rows = torch.cat([part.pixels for part in (train, val, test)])
    # Two of the 1,797 images may be equal; parts that overlapped would leave hundreds.
    assert len(rows.unique(dim=0)) > 1790
    assert rows.min() >= 0
    assert rows.max() == 1
    assert all(len(part.labels.unique()) == 10 for part in (train, val, test))


def test_model_and_loss(digits):
    model = digits.build(0)
    assert [tuple(p.shape) for p in model.parameters()] == [
        (128, 64), (128,), (64, 128), (64,), (10, 64), (10,),
    ]  # fmt: skip
    batch = digits.batch(0, 0)
    assert batch.pixels.shape == (64, 64)
    scores = model(batch.pixels).log_softmax(1)
    expected = -scores[torch.arange(64), batch.labels].mean()
    assert digits.loss(model, batch).item() == pytest.approx(expected.item(), rel=1e-6)


def test_one_pass_sees_no_image_twice(digits):
    steps = 1197 // 64
    rows = torch.cat([digits.batch(3, step).pixels for step in range(steps)])
    assert len(rows.unique(dim=0)) > 64 * steps - 5


def test_adamw_reaches_the_target(digits):
    model = digits.build(0)
    assert digits.evaluate(model)["accuracy"] < 0.3
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(150):
        optimizer.zero_grad()
        digits.loss(model, digits.batch(0, step)).backward()
        optimizer.step()
    assert digits.evaluate(model)["accuracy"] >= digits.target
    assert digits.test(model)["accuracy"] > 0.9


@pytest.mark.parametrize("wrong", [0, 6.4, "64"])
def test_wrong_batch_size(wrong):
    with pytest.raises(ProblemError, match="digits: batch_size must be an integer"):
        Digits(batch_size=wrong)


def test_batch_larger_than_the_data():
    with pytest.raises(ProblemError, match="use 1 to 1197"):
        Digits(batch_size=2000).batch(0, 0)

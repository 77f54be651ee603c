"""The base class of classification problems, and its two metrics."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anyorder.problems import ProblemError, check
from anyorder.problems._classification import (
    Classification,
    Parts,
    Samples,
    accuracy,
    average_precision,
)


class Points(Classification):
    """Two overlapping groups of points."""

    name = "points"
    metric = "average_precision"

    def read(self):
        chance = torch.Generator().manual_seed(3)
        labels = torch.arange(120) % 2
        data = Samples(torch.randn(120, 2, generator=chance) + labels[:, None], labels)
        return Parts(*(data.take(rows) for rows in torch.arange(120).split(40)))

    def network(self):
        return nn.Linear(2, 2)


def test_average_precision_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn")
    chance = torch.Generator().manual_seed(0)
    for levels in (3, 20, 1000):  # with few levels most scores are tied
        scores = torch.zeros(200, 2)
        scores[:, 1] = torch.randint(levels, (200,), generator=chance) / levels
        labels = (torch.rand(200, generator=chance) < 0.2).long()
        expected = metrics.average_precision_score(labels, scores[:, 1])
        assert average_precision(scores, labels) == pytest.approx(expected)


def test_metrics_by_hand():
    scores = torch.tensor([[0.0, 3.0], [0.0, 2.0], [0.0, 1.0], [1.0, 0.0]])
    assert average_precision(scores, torch.tensor([1, 0, 1, 0])) == pytest.approx((1 + 2 / 3) / 2)
    assert accuracy(scores, torch.tensor([1, 0, 1, 0])) == 0.75


def test_the_test_can_be_resampled(recwarn):
    problem = Points(batch_size=8)
    model = problem.build(0)
    report = check(problem)
    assert report.findings == (), str(report)
    outputs = problem.test_outputs(model)
    assert outputs.shape == (40, 2)
    assert problem.test(model) == problem.score(outputs, torch.arange(40))
    assert problem.score(outputs, torch.arange(10)) != problem.test(model)


def test_evaluation_does_not_depend_on_the_chunks(monkeypatch):
    problem = Points()
    model = problem.build(1)
    whole = problem.evaluate(model)
    monkeypatch.setattr("anyorder.problems._classification._CHUNK", 7)
    assert problem.evaluate(model) == pytest.approx(whole)


@pytest.mark.parametrize("wrong", [0, 1.5, "8"])
def test_wrong_batch_size(wrong):
    with pytest.raises(ProblemError, match="points: batch_size must be an integer"):
        Points(batch_size=wrong)

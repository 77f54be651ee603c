"""The problem ``adult`` on its published data."""

from __future__ import annotations

import os

import pytest
import torch

from anyorder.problems import ProblemError, check
from anyorder.problems.adult import Adult

needs_data = pytest.mark.skipif(
    "ANYORDER_DATA" not in os.environ, reason="ANYORDER_DATA is not set"
)


@pytest.fixture(scope="module")
def problem() -> Adult:
    return Adult()


@needs_data
def test_parts(problem):
    parts = problem.parts
    assert [len(part.labels) for part in parts] == [23561, 3000, 6000]
    assert parts.training.inputs.shape[1] == 91
    assert problem.batch(0, 0).inputs.shape == (64, 91)
    assert sum(p.numel() for p in problem.build(0).parameters()) == 8034


@needs_data
def test_adamw_learns(problem):
    model = problem.build(0)
    before = problem.evaluate(model)[problem.metric]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(100):
        optimizer.zero_grad()
        problem.loss(model, problem.batch(0, step)).backward()
        optimizer.step()
    after = problem.evaluate(model)[problem.metric]
    assert before < 0.65 < after
    assert problem.test(model)[problem.metric] > 0.65 - 0.02


@needs_data
def test_check_finds_nothing(problem):
    report = check(problem)
    assert report.findings == (), str(report)


def test_missing_data_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("ANYORDER_DATA", str(tmp_path))
    with pytest.raises(ProblemError, match="problem 'adult' needs the folder .*adult"):
        Adult().batch(0, 0)


def test_another_table_is_refused(monkeypatch, tmp_path):
    import gzip

    (tmp_path / "adult").mkdir()
    (tmp_path / "adult/adult.csv.gz").write_bytes(gzip.compress(b"age,sex\n1,Male\n"))
    monkeypatch.setenv("ANYORDER_DATA", str(tmp_path))
    with pytest.raises(ProblemError, match="lacks the columns capital-gain"):
        Adult().batch(0, 0)


@needs_data
def test_features(problem):
    inputs, labels = problem.parts.training
    assert inputs[:, :5].mean(0).abs().max() < 1e-4
    assert (inputs[:, :5].std(0) - 1).abs().max() < 1e-3
    assert (inputs[:, 5:].sum(1) == 7).all()  # one of each category
    assert labels.float().mean().item() == pytest.approx(0.241, abs=0.01)

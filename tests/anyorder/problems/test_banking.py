"""The problem ``banking`` on its published data."""

from __future__ import annotations

import os

import pytest
import torch

from anyorder.problems import ProblemError, check
from anyorder.problems.banking import Banking

needs_data = pytest.mark.skipif(
    "ANYORDER_DATA" not in os.environ, reason="ANYORDER_DATA is not set"
)


@pytest.fixture(scope="module")
def problem() -> Banking:
    return Banking()


@needs_data
def test_parts(problem):
    parts = problem.parts
    assert [len(part.labels) for part in parts] == [9003, 1000, 3080]
    assert parts.training.inputs.shape[1] == 1024
    assert problem.batch(0, 0).inputs.shape == (64, 1024)
    assert sum(p.numel() for p in problem.build(0).parameters()) == 141133


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
    assert before < 0.5 < after
    assert problem.test(model)[problem.metric] > 0.5 - 0.02


@needs_data
def test_check_finds_nothing(problem):
    report = check(problem)
    assert report.findings == (), str(report)


def test_missing_data_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("ANYORDER_DATA", str(tmp_path))
    with pytest.raises(ProblemError, match="problem 'banking' needs the folder .*banking77"):
        Banking().batch(0, 0)

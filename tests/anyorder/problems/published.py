"""What every classification problem on published data keeps."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import pytest
import torch

from anyorder.problems import ProblemError, check

needs_data = pytest.mark.skipif(
    "ANYORDER_DATA" not in os.environ, reason="ANYORDER_DATA is not set"
)


class Published:
    """Tests of one problem: its data, its model, and what AdamW reaches in 100 steps."""

    kind: ClassVar[Any]
    #: Rows for training, validation and test.
    rows: ClassVar[tuple[int, int, int]]
    width: ClassVar[int]
    parameters: ClassVar[int]
    lr: ClassVar[float] = 1e-2
    reaches: ClassVar[float]
    folder: ClassVar[str]

    @pytest.fixture(scope="class")
    @classmethod
    def problem(cls):
        return cls.kind()

    @needs_data
    def test_parts(self, problem):
        parts = problem.parts
        assert tuple(len(part.labels) for part in parts) == self.rows
        assert parts.training.inputs.shape[1] == self.width
        assert problem.batch(0, 0).inputs.shape == (64, self.width)
        assert sum(p.numel() for p in problem.build(0).parameters()) == self.parameters

    @needs_data
    def test_adamw_learns(self, problem):
        model = problem.build(0)
        before = problem.evaluate(model)[problem.metric]
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.lr)
        for step in range(100):
            optimizer.zero_grad()
            problem.loss(model, problem.batch(0, step)).backward()
            optimizer.step()
        after = problem.evaluate(model)[problem.metric]
        assert before < self.reaches < after
        assert problem.test(model)[problem.metric] > self.reaches - 0.02

    @needs_data
    def test_check_finds_nothing(self, problem):
        report = check(problem)
        assert report.findings == (), str(report)

    def test_missing_data_is_said(self, monkeypatch, tmp_path):
        monkeypatch.setenv("ANYORDER_DATA", str(tmp_path))
        needs = f"problem '{self.kind.name}' needs the folder .*{self.folder}"
        with pytest.raises(ProblemError, match=needs):
            self.kind().batch(0, 0)

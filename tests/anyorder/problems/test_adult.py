"""The problem ``adult`` on its published data."""

from __future__ import annotations

import gzip

import pytest
from published import Published, needs_data

from anyorder.problems import ProblemError
from anyorder.problems.adult import Adult


class TestAdult(Published):
    kind = Adult
    rows = (23561, 3000, 6000)
    width = 91
    parameters = 8034
    reaches = 0.65
    folder = "adult"


def test_another_table_is_refused(monkeypatch, tmp_path):
    (tmp_path / "adult").mkdir()
    (tmp_path / "adult/adult.csv.gz").write_bytes(gzip.compress(b"age,sex\n1,Male\n"))
    monkeypatch.setenv("ANYORDER_DATA", str(tmp_path))
    with pytest.raises(ProblemError, match="lacks the columns capital-gain"):
        Adult().batch(0, 0)


@needs_data
def test_features():
    inputs, labels = Adult().parts.training
    assert inputs[:, :5].mean(0).abs().max() < 1e-4
    assert (inputs[:, :5].std(0) - 1).abs().max() < 1e-3
    assert (inputs[:, 5:].sum(1) == 7).all()  # one of each category
    assert labels.float().mean().item() == pytest.approx(0.241, abs=0.01)

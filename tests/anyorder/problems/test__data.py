"""Where built-in problems get their data."""

from __future__ import annotations

import sys

import pytest
import torch

from anyorder.problems import ProblemError, load
from anyorder.problems._data import data_files, sklearn_datasets, split


@pytest.mark.parametrize("name", ["digits", "cancer"])
def test_without_sklearn_the_extra_is_named(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    problem = load(name)
    with pytest.raises(ProblemError, match=r"pip install 'anyorder\[compare\]'") as caught:
        problem.batch(0, 0)
    assert f"'{name}'" in str(caught.value)


def test_sklearn_is_found():
    pytest.importorskip("sklearn")
    assert hasattr(sklearn_datasets("digits"), "load_digits")


class TestDataFiles:
    def test_variable_unset(self, monkeypatch):
        monkeypatch.delenv("ANYORDER_DATA", raising=False)
        with pytest.raises(ProblemError, match=r"ANYORDER_DATA is not set.*'things' with a, b"):
            data_files("p", "things", ["a", "b"])

    def test_folder_missing(self, monkeypatch, tmp_path):
        monkeypatch.setenv("ANYORDER_DATA", str(tmp_path))
        with pytest.raises(ProblemError, match=r"needs the folder .*things.*Set ANYORDER_DATA"):
            data_files("p", "things", ["a", "b"])

    def test_file_missing(self, monkeypatch, tmp_path):
        monkeypatch.setenv("ANYORDER_DATA", str(tmp_path))
        (tmp_path / "things").mkdir()
        (tmp_path / "things" / "a").touch()
        with pytest.raises(ProblemError, match=r"needs b in .*with a, b"):
            data_files("p", "things", ["a", "b"])

    def test_all_there(self, monkeypatch, tmp_path):
        monkeypatch.setenv("ANYORDER_DATA", str(tmp_path))
        (tmp_path / "things").mkdir()
        (tmp_path / "things" / "a").touch()
        assert data_files("p", "things", ["a"]) == [tmp_path / "things" / "a"]


def test_split_is_a_fixed_partition():
    parts = split(20, (5, 3), key="k")
    assert [len(part) for part in parts] == [5, 3, 12]
    assert sorted(torch.cat(parts).tolist()) == list(range(20))
    again, other = split(20, (5, 3), key="k"), split(20, (5, 3), key="other")
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))
    assert not torch.equal(parts[2], other[2])

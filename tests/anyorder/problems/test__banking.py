"""Reading of the questions to a bank."""

from __future__ import annotations

import gzip
import json

import pytest

from anyorder.problems import ProblemError
from anyorder.problems._banking import questions


@pytest.fixture
def folder(tmp_path, monkeypatch):
    place = tmp_path / "banking77"
    place.mkdir()
    text = 'text,category\n"a, b",lost\nwhere is it,found\n'
    (place / "train.csv.gz").write_bytes(gzip.compress(text.encode()))
    (place / "test.csv").write_text("text,category\nc,found\n")
    (place / "categories.json").write_text(json.dumps(["found", "lost"]))
    monkeypatch.setenv("ANYORDER_DATA", str(tmp_path))
    return place


def test_texts_and_labels(folder):
    (texts, labels), (test, answers) = questions("banking")
    assert texts == ["a, b", "where is it"]
    assert labels.tolist() == [1, 0]
    assert (test, answers.tolist()) == (["c"], [0])


def test_an_unknown_category_is_refused(folder):
    (folder / "test.csv").write_text("text,category\nc,none\n")
    with pytest.raises(ProblemError, match="no column or category 'none'"):
        questions("banking")


def test_missing_files_are_named(folder):
    (folder / "categories.json").unlink()
    with pytest.raises(ProblemError, match=r"problem 'encoder' needs categories.json"):
        questions("encoder")

"""Questions to a bank with one of 77 intents: data of two problems."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import torch
from torch import Tensor

from anyorder.problems._data import data_files
from anyorder.problems._text import read
from anyorder.problems.base import ProblemError

_FILES = ("train.csv.gz", "test.csv", "categories.json")


def questions(problem: str) -> tuple[tuple[list[str], Tensor], tuple[list[str], Tensor]]:
    """Return texts and labels (int64) of the published training part and of the test part.

    Raises:
        ProblemError: If ``ANYORDER_DATA`` is not set, or a file is missing or has another form.
    """
    train, test, categories = data_files(problem, "banking77", _FILES)
    places = {name: place for place, name in enumerate(json.loads(read(categories)))}
    return _read(train, places), _read(test, places)


def _read(path: Path, places: dict[str, int]) -> tuple[list[str], Tensor]:
    rows = list(csv.DictReader(read(path).splitlines(keepends=True)))
    try:
        labels = torch.tensor([places[row["category"]] for row in rows])
        return [row["text"] for row in rows], labels
    except KeyError as error:
        raise ProblemError(f"{path}: no column or category {error}.") from error

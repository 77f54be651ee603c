"""Texts with labels, from a CSV or JSON Lines file."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyorder.errors import AnyOrderError
from anyorder.problems._data import split


class FinetuneError(AnyOrderError, ValueError):
    """Data, a model or settings that cannot be used for fine-tuning."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Texts and the positions of their labels among ``classes``."""

    texts: list[str]
    labels: list[int]
    classes: list[str]

    def take(self, rows: Sequence[int]) -> Examples:
        """Return some of the examples."""
        return Examples(
            [self.texts[row] for row in rows], [self.labels[row] for row in rows], self.classes
        )


def read_examples(path: Path, classes: list[str] | None = None) -> Examples:
    """Read a ``.csv``, ``.tsv`` or ``.jsonl`` file with the fields ``text`` and ``label``.

    Args:
        path: the file, in UTF-8.
        classes: allowed labels; default: all labels of the file, sorted.

    Raises:
        FinetuneError: the file is missing, has another form, or has fewer than two classes.
    """
    readers = {".csv": _table, ".tsv": _table, ".jsonl": _lines}
    if path.suffix not in readers:
        raise FinetuneError(
            f"{path}: expected a file that ends with {', '.join(readers)}, with text and label"
        )
    try:
        rows = list(readers[path.suffix](path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FinetuneError(f"cannot read {path}: {error}") from error
    if not rows:
        raise FinetuneError(f"{path} holds no examples")
    known = sorted({label for _, label in rows}) if classes is None else classes
    if len(known) < 2:
        raise FinetuneError(f"{path}: expected at least two different labels, got {known}")
    if strange := sorted({label for _, label in rows} - set(known)):
        raise FinetuneError(f"{path}: labels {strange[:5]} are not among those of the training")
    places = {label: place for place, label in enumerate(known)}
    return Examples([text for text, _ in rows], [places[label] for _, label in rows], known)


def held_out(examples: Examples, fraction: float, seed: int) -> tuple[Examples, Examples]:
    """Split examples into training and validation, a pure function of the seed.

    Raises:
        FinetuneError: a part would be empty.
    """
    size = round(fraction * len(examples.texts))
    if not 0 < size < len(examples.texts):
        raise FinetuneError(
            f"validation: {fraction:g} of {len(examples.texts)} examples leaves a part empty; "
            "expected a fraction between 0 and 1, or a file"
        )
    chosen, rest = split(len(examples.texts), (size,), key=f"finetune {seed}")
    return examples.take(rest.tolist()), examples.take(chosen.tolist())


def _table(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        missing = {"text", "label"} - set(reader.fieldnames or ())
        if missing:
            raise FinetuneError(
                f"{path}: expected the columns text and label in the first line, got "
                f"{', '.join(reader.fieldnames or ['nothing'])}"
            )
        for row in reader:
            yield _checked(row, path, reader.line_num)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    row: Any = json.loads(line)
                except ValueError as error:
                    raise FinetuneError(f"{path}, line {number}: no JSON: {error}") from error
                yield _checked(row if isinstance(row, dict) else {}, path, number)


def _checked(row: dict[str, Any], path: Path, line: int) -> tuple[str, str]:
    text, label = row.get("text"), row.get("label")
    whole = isinstance(label, (str, int)) and not isinstance(label, bool)
    if not isinstance(text, str) or not whole or label == "":
        raise FinetuneError(
            f"{path}, line {line}: expected text and a label that is a word or a whole number"
        )
    return text, str(label)

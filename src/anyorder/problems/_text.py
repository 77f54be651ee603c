"""Short texts as tensors, without a vocabulary: words are hashed."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from anyorder.problems.base import ProblemError

_WORD = re.compile(r"[^\W_]+|[!?£$]")


def read(path: Path) -> str:
    """Return the text of a file, compressed if its name ends with ``.gz``.

    Raises:
        ProblemError: If the file is damaged or is not UTF-8.
    """
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise ProblemError(f"{path} is not a complete UTF-8 file: {error}.") from error


def labelled(path: Path, labels: Sequence[str], *, header: bool) -> tuple[list[str], Tensor]:
    """Read lines of a label, a tab and a text.

    Args:
        path: File to read.
        labels: Allowed labels.
        header: Whether the first line holds names of columns.

    Returns:
        The texts, and for each the place of its label among ``labels``, int64.

    Raises:
        ProblemError: If a line has another form.
    """
    texts: list[str] = []
    found: list[int] = []
    lines = read(path).rstrip("\n").split("\n")
    for number, line in enumerate(lines[header:], start=1 + header):
        label, tab, text = line.partition("\t")
        if not tab or label not in labels:
            raise ProblemError(
                f"{path}, line {number}: expected {' or '.join(labels)}, a tab and a text."
            )
        texts.append(text)
        found.append(labels.index(label))
    return texts, torch.tensor(found)


def counts(texts: Sequence[str], buckets: int) -> Tensor:
    """Return how often words of each bucket occur, float32 of shape ``(n, buckets)``.

    Counts are replaced by ``log(1 + count)``; each row has length 1, or 0 without a word.
    """
    table = torch.zeros(len(texts), buckets)
    for row, text in enumerate(texts):
        places = torch.tensor([_bucket(word, buckets) for word in _words(text)], dtype=torch.int64)
        table[row] = torch.bincount(places, minlength=buckets).float()
    return torch.nn.functional.normalize(table.log1p(), dim=1)


def tokens(texts: Sequence[str], buckets: int, length: int) -> Tensor:
    """Return the buckets of the first words, int64 of shape ``(n, length)``; 0 is no word."""
    table = torch.zeros(len(texts), length, dtype=torch.int64)
    for row, text in enumerate(texts):
        places = [1 + _bucket(word, buckets - 1) for word in _words(text)[:length]]
        table[row, : len(places)] = torch.tensor(places, dtype=torch.int64)
    return table


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _bucket(word: str, buckets: int) -> int:
    return zlib.crc32(word.encode()) % buckets  # the hash of Python changes with the process

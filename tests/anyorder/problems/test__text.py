"""Reading and hashing of texts."""

from __future__ import annotations

import gzip

import pytest
import torch

from anyorder.problems import ProblemError
from anyorder.problems._text import counts, labelled, read, tokens


def test_reads_plain_and_compressed(tmp_path):
    (tmp_path / "a.txt").write_text("£5 für dich", encoding="utf-8")
    (tmp_path / "a.gz").write_bytes(gzip.compress("£5 für dich".encode()))
    assert read(tmp_path / "a.txt") == read(tmp_path / "a.gz") == "£5 für dich"
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"x" * 1000)[:-12])
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe")
    for name in ("b.gz", "c.txt"):
        with pytest.raises(ProblemError, match="not a complete UTF-8 file"):
            read(tmp_path / name)


def test_labelled_lines(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('label\ttext\nb\tsay "yes"\na\tno\ttab\n', encoding="utf-8")
    texts, labels = labelled(path, ("a", "b"), header=True)
    assert texts == ['say "yes"', "no\ttab"]
    assert labels.tolist() == [1, 0]
    with pytest.raises(ProblemError, match="line 1: expected a or b, a tab and a text"):
        labelled(path, ("a", "b"), header=False)


def test_counts_do_not_depend_on_order_or_case():
    table = counts(["win a PRIZE a", "a prize win a", "", "other"], 64)
    assert table.shape == (4, 64)
    assert torch.equal(table[0], table[1])
    assert not torch.equal(table[0], table[3])
    assert table.norm(dim=1).tolist() == pytest.approx([1, 1, 0, 1])
    assert (
        sorted(table[0][table[0] > 0].tolist())[-1] == table[0].max()
    )  # the word that comes twice


def test_tokens_are_cut_and_padded():
    table = tokens(["one two three four", "two"], 32, 3)
    assert table.shape == (2, 3)
    assert table[1, 0] == table[0, 1]
    assert table[1, 1:].tolist() == [0, 0]
    assert (table[0] > 0).all()
    assert table.max() < 32

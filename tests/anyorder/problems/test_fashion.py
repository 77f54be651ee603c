"""Fashion-MNIST: reading idx files, and the problem on small files of the same form."""

from __future__ import annotations

import gzip
import os
import struct

import pytest
import torch

from anyorder.problems import ProblemError, check
from anyorder.problems import fashion as module
from anyorder.problems.fashion import Fashion, _read_idx


def idx(array: torch.Tensor) -> bytes:
    header = struct.pack(f">{array.ndim + 1}I", 0x0800 + array.ndim, *array.shape)
    return header + array.numpy().tobytes()


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder with 60 training and 20 test images in the published form."""
    folder = tmp_path / "fashion_mnist"
    folder.mkdir()
    chance = torch.Generator().manual_seed(0)
    for part, n in (("train", 60), ("t10k", 20)):
        labels = torch.arange(n, dtype=torch.uint8) % 10
        images = torch.randint(0, 100, (n, 28, 28), dtype=torch.uint8, generator=chance)
        images += 15 * labels[:, None, None]
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    monkeypatch.setenv("ANYORDER_DATA", str(tmp_path))
    monkeypatch.setattr(module, "_VALIDATION", 20)
    monkeypatch.setattr(module, "_EVALUATED", 15)
    monkeypatch.setattr(module, "_CHUNK", 4)
    return folder


class TestIdx:
    def test_reads_what_was_written(self, tmp_path):
        array = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4)
        path = tmp_path / "a.gz"
        path.write_bytes(gzip.compress(idx(array)))
        assert (_read_idx(path, ndim=3) == array.numpy()).all()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"no gzip", "not a complete gzip file"),
            (gzip.compress(b"x" * 1000)[:-12], "not a complete gzip file"),
            (gzip.compress(b""), "not an idx file"),
            (gzip.compress(struct.pack(">4I", 0x0803, 1, 2, 2) + b"1234"), "not an idx file"),
            (gzip.compress(struct.pack(">2I", 0x0801, 5) + b"123"), r"has 3 bytes.*\[5\]"),
        ],
    )
    def test_refuses_other_files(self, tmp_path, content, message):
        path = tmp_path / "a.gz"
        path.write_bytes(content)
        with pytest.raises(ProblemError, match=message):
            _read_idx(path, ndim=1)


class TestSmall:
    def test_parts(self, small):
        train, evaluated = Fashion()._train_and_validation
        assert train.images.shape == (40, 1, 28, 28)
        assert evaluated.images.shape == (15, 1, 28, 28)
        both = torch.cat([train.images, evaluated.images]).flatten(1)
        assert len(both.unique(dim=0)) == 55

    def test_batch_and_model(self, small):
        problem = Fashion(batch_size=8)
        batch = problem.batch(0, 0)
        assert batch.images.shape == (8, 1, 28, 28)
        assert batch.images.dtype == torch.uint8
        model = problem.build(0)
        assert sum(p.numel() for p in model.parameters()) == 20_490
        assert problem.loss(model, batch).item() > 0

    def test_results_do_not_depend_on_the_chunks(self, small, monkeypatch):
        problem = Fashion()
        model = problem.build(0)
        chunked = problem.evaluate(model)
        monkeypatch.setattr(module, "_CHUNK", 1000)
        assert problem.evaluate(model) == pytest.approx(chunked, rel=1e-5)
        images, labels = problem._train_and_validation[1]
        with torch.no_grad():
            scores = model((images / 255 - 0.28604) / 0.35302)
        right = (scores.argmax(1) == labels).float().mean().item()
        assert chunked["accuracy"] == pytest.approx(right)
        assert set(problem.test(model)) == {"loss", "accuracy"}

    def test_check_finds_nothing(self, small):
        report = check(Fashion(batch_size=8))
        assert report.findings == (), str(report)


def test_missing_data_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("ANYORDER_DATA", str(tmp_path))
    problem = Fashion()
    with pytest.raises(ProblemError, match=r"train-images-idx3-ubyte.gz"):
        problem.batch(0, 0)


@pytest.mark.skipif("ANYORDER_DATA" not in os.environ, reason="ANYORDER_DATA is not set")
def test_published_files():
    problem = Fashion()
    train, evaluated = problem._train_and_validation
    assert train.images.shape == (55_000, 1, 28, 28)
    pixels = train.images.float() / 255
    assert pixels.mean().item() == pytest.approx(0.28604, abs=2e-3)
    assert pixels.std().item() == pytest.approx(0.35302, abs=2e-3)
    assert train.labels.bincount().min() > 5_300
    assert len(evaluated.labels) == 1_000
    model = problem.build(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(60):
        optimizer.zero_grad()
        problem.loss(model, problem.batch(0, step)).backward()
        optimizer.step()
    assert problem.evaluate(model)["accuracy"] > 0.7


@pytest.mark.parametrize("wrong", [0, 1.5, None])
def test_wrong_batch_size(wrong):
    with pytest.raises(ProblemError, match="fashion: batch_size must be an integer"):
        Fashion(batch_size=wrong)

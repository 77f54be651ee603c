"""Fashion-MNIST: a small convolutional network on images of clothing."""

from __future__ import annotations

import gzip
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyorder.problems._data import data_files, split
from anyorder.problems.base import (
    Problem,
    ProblemError,
    device_of,
    evaluating,
    minibatch,
    require_int,
    seeded,
)

_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
# Mean and standard deviation of the training pixels divided by 255.
_MEAN, _STD = 0.28604, 0.35302
_VALIDATION = 5_000
_EVALUATED = 1_000
_CHUNK = 1_000


class _Split(NamedTuple):
    """Images, uint8 of shape ``(n, 1, 28, 28)``, and labels, int64 of shape ``(n,)``."""

    images: Tensor
    labels: Tensor


class Fashion(Problem):
    """Classify 28 x 28 images of clothing with a convolutional network of 20,490 parameters.

    Two 3 x 3 convolutions (16 and 32 channels), each followed by ReLU and 2 x 2 pooling, and one
    linear layer. A fixed seed holds out 5,000 of the 60,000 training images; for speed
    ``evaluate`` uses 1,000 of these. ``test`` uses the 10,000 images of the published test part.
    The loss is the mean cross-entropy in nats.

    Args:
        batch_size: Images per training batch.

    Raises:
        ProblemError: If an option has a wrong value, ``ANYORDER_DATA`` is not set, or a file is
            missing or not in idx format.

    References:
        H. Xiao, K. Rasul, R. Vollgraf (2017), Fashion-MNIST. arXiv:1708.07747.
    """

    name = "fashion"
    metric = "accuracy"
    goal: ClassVar[Literal["min", "max"]] = "max"
    schedule: ClassVar[Literal["constant", "cosine"]] = "cosine"
    target = 0.85

    def __init__(self, *, batch_size: int = 64) -> None:
        """Check and store the options."""
        require_int("batch_size", batch_size, at_least=1, owner=self.name)
        self.batch_size = batch_size

    @cached_property
    def _train_and_validation(self) -> tuple[_Split, _Split]:
        data = _read("train")
        held_out, train = split(len(data.labels), (_VALIDATION,), key=self.name)
        evaluated = held_out[:_EVALUATED]
        return (
            _Split(data.images[train], data.labels[train]),
            _Split(data.images[evaluated], data.labels[evaluated]),
        )

    @cached_property
    def _test(self) -> _Split:
        return _read("test")

    def build(self, seed: int) -> nn.Module:
        """Return the network with the default initialisation of ``torch.nn``."""
        with seeded(seed):
            return nn.Sequential(
                nn.Conv2d(1, 16, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(16, 32, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(32 * 7 * 7, 10),
            )

    def batch(self, seed: int, step: int) -> _Split:
        """Return ``batch_size`` training images, without repetition within a pass."""
        data = self._train_and_validation[0]
        rows = minibatch(len(data.labels), self.batch_size, seed=seed, step=step)
        return _Split(data.images[rows], data.labels[rows])

    def outputs(self, model: nn.Module, batch: _Split) -> Tensor:
        """Return a score for each kind of clothing, ``(batch, 10)``."""
        return model(_standardise(batch.images, model))

    def criterion(self, outputs: Tensor, batch: _Split) -> Tensor:
        """Return the mean cross-entropy of the batch."""
        return F.cross_entropy(outputs, batch.labels)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return loss and accuracy on 1,000 validation images."""
        data = self._train_and_validation[1]
        return _judge(_scores(model, data), data.labels)

    def test_outputs(self, model: nn.Module) -> Tensor:
        """Return the scores of the 10,000 test images, ``(10000, 10)``."""
        return _scores(model, self._test)

    def score(self, outputs: Tensor, rows: Tensor) -> dict[str, float]:
        """Return loss and accuracy on these test images."""
        return _judge(outputs[rows.to(outputs.device)], self._test.labels[rows])


def _standardise(images: Tensor, model: nn.Module) -> Tensor:
    """Convert bytes to mean 0 and standard deviation 1, in the dtype of the model."""
    return (images.to(next(model.parameters()).dtype) / 255 - _MEAN) / _STD


def _scores(model: nn.Module, data: _Split) -> Tensor:
    device = device_of(model)
    with evaluating(model):
        parts = torch.split(data.images, _CHUNK)
        return torch.cat([model(_standardise(part.to(device), model)) for part in parts])


def _judge(scores: Tensor, labels: Tensor) -> dict[str, float]:
    labels = labels.to(scores.device)
    return {
        "loss": F.cross_entropy(scores, labels, reduction="sum").item() / len(labels),
        "accuracy": int((scores.argmax(1) == labels).sum().item()) / len(labels),
    }


def _read(part: str) -> _Split:
    """Read images and labels of one published part."""
    images, labels = data_files("fashion", "fashion_mnist", _FILES[part])
    pixels = torch.as_tensor(_read_idx(images, ndim=3))
    answers = torch.as_tensor(_read_idx(labels, ndim=1)).long()
    return _Split(pixels.unsqueeze(1), answers)


def _read_idx(path: Path, *, ndim: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Read a gzipped idx file: a magic number, the sizes, the bytes, all big-endian.

    Args:
        path: File to read.
        ndim: Required number of dimensions.

    Returns:
        A writable uint8 array of the shape in the header.

    Raises:
        ProblemError: If the file is damaged or has another format.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise ProblemError(f"{path} is not a complete gzip file: {error}.") from error
    header = np.frombuffer(content[: 4 * (ndim + 1)], dtype=">u4").tolist()
    # 0x08 means unsigned bytes; the last byte of the magic number is the number of dimensions.
    if len(header) != ndim + 1 or header[0] != 0x0800 + ndim:
        raise ProblemError(f"{path} is not an idx file of unsigned bytes with {ndim} dimensions.")
    pixels = np.frombuffer(content, dtype=np.uint8, offset=4 * (ndim + 1))
    if pixels.size != np.prod(header[1:]):
        raise ProblemError(f"{path} has {pixels.size} bytes of data; its header says {header[1:]}.")
    return pixels.reshape(header[1:]).copy()

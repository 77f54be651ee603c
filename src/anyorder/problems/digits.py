"""Handwritten digits: a small classifier that trains in seconds."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyorder.problems._data import sklearn_datasets, split
from anyorder.problems.base import (
    Problem,
    device_of,
    evaluating,
    minibatch,
    require_int,
    seeded,
)


class _Split(NamedTuple):
    """Pixels in [0, 1] of shape ``(n, 64)`` and labels of shape ``(n,)``."""

    pixels: Tensor
    labels: Tensor


class Digits(Problem):
    """Classify 8 x 8 images of digits with a tanh network of layers 64-128-64-10.

    The 1,797 images of scikit-learn's ``load_digits`` are split by a fixed seed into 1,197 for
    training, 300 for validation and 300 for the test. The loss is the mean cross-entropy in nats.

    Args:
        batch_size: Images per training batch.

    Raises:
        ProblemError: If an option has a wrong value or scikit-learn is not installed.
    """

    name = "digits"
    metric = "accuracy"
    goal: ClassVar[Literal["min", "max"]] = "max"
    schedule: ClassVar[Literal["constant", "cosine"]] = "cosine"
    target = 0.95

    def __init__(self, *, batch_size: int = 64) -> None:
        """Check and store the options."""
        require_int("batch_size", batch_size, at_least=1, owner=self.name)
        self.batch_size = batch_size

    @cached_property
    def _parts(self) -> tuple[_Split, _Split, _Split]:
        """Training, validation and test data."""
        digits: Any = sklearn_datasets(self.name).load_digits()
        pixels = torch.tensor(digits.data, dtype=torch.float32) / 16
        labels = torch.tensor(digits.target, dtype=torch.int64)
        val, test, train = split(len(labels), (300, 300), key=self.name)
        return tuple(_Split(pixels[i], labels[i]) for i in (train, val, test))  # type: ignore[return-value]

    def build(self, seed: int) -> nn.Module:
        """Return the network with the default initialisation of ``torch.nn``."""
        with seeded(seed):
            return nn.Sequential(
                nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 64), nn.Tanh(), nn.Linear(64, 10)
            )

    def batch(self, seed: int, step: int) -> _Split:
        """Return ``batch_size`` training images, without repetition within a pass."""
        data = self._parts[0]
        rows = minibatch(len(data.labels), self.batch_size, seed=seed, step=step)
        return _Split(data.pixels[rows], data.labels[rows])

    def outputs(self, model: nn.Module, batch: _Split) -> Tensor:
        """Return a score for each digit, ``(batch, 10)``."""
        return model(batch.pixels)

    def criterion(self, outputs: Tensor, batch: _Split) -> Tensor:
        """Return the mean cross-entropy of the batch."""
        return F.cross_entropy(outputs, batch.labels)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return loss and accuracy on the 300 validation images."""
        return _judge(_scores(model, self._parts[1]), self._parts[1].labels)

    def test_outputs(self, model: nn.Module) -> Tensor:
        """Return the scores of the 300 test images, ``(300, 10)``."""
        return _scores(model, self._parts[2])

    def score(self, outputs: Tensor, rows: Tensor) -> dict[str, float]:
        """Return loss and accuracy on these test images."""
        return _judge(outputs[rows.to(outputs.device)], self._parts[2].labels[rows])


def _scores(model: nn.Module, data: _Split) -> Tensor:
    with evaluating(model):
        return model(data.pixels.to(device_of(model)))


def _judge(scores: Tensor, labels: Tensor) -> dict[str, float]:
    labels = labels.to(scores.device)
    return {
        "loss": F.cross_entropy(scores, labels).item(),
        "accuracy": (scores.argmax(1) == labels).float().mean().item(),
    }

"""Classification of fixed samples: what the problems with a table or texts share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyorder.problems.base import (
    Problem,
    device_of,
    evaluating,
    minibatch,
    require_int,
    seeded,
)

#: Samples that are evaluated at a time.
_CHUNK = 2_000


class Samples(NamedTuple):
    """Inputs with the samples in dimension 0, and labels, int64 of shape ``(n,)``."""

    inputs: Tensor
    labels: Tensor

    def take(self, rows: Tensor) -> Samples:
        """Return some of the samples."""
        return Samples(self.inputs[rows], self.labels[rows])


class Parts(NamedTuple):
    """Samples for training, validation and the test."""

    training: Samples
    validation: Samples
    test: Samples


class Classification(Problem):
    """Classify samples with a network; the loss is the mean cross-entropy in nats.

    A subclass implements ``read`` and ``network``. If its ``metric`` is ``average_precision``,
    there are two classes and class 1 is searched for.

    Args:
        batch_size: Samples per training batch.
    """

    metric = "accuracy"
    goal: ClassVar[Literal["min", "max"]] = "max"
    schedule: ClassVar[Literal["constant", "cosine"]] = "cosine"

    def __init__(self, *, batch_size: int = 64) -> None:
        """Check and store the options."""
        require_int("batch_size", batch_size, at_least=1, owner=self.name)
        self.batch_size = batch_size

    @abstractmethod
    def read(self) -> Parts:
        """Return the data; called once."""

    @abstractmethod
    def network(self) -> nn.Module:
        """Return a new network; layers are initialised from the global generator."""

    @cached_property
    def parts(self) -> Parts:
        """The data, read on first use."""
        return self.read()

    def build(self, seed: int) -> nn.Module:
        """Return a new network."""
        with seeded(seed):
            return self.network()

    def batch(self, seed: int, step: int) -> Samples:
        """Return ``batch_size`` training samples, without repetition within a pass."""
        data = self.parts.training
        return data.take(minibatch(len(data.labels), self.batch_size, seed=seed, step=step))

    def outputs(self, model: nn.Module, batch: Samples) -> Tensor:
        """Return a score for each class, ``(batch, classes)``."""
        return model(batch.inputs)

    def criterion(self, outputs: Tensor, batch: Samples) -> Tensor:
        """Return the mean cross-entropy of the batch."""
        return F.cross_entropy(outputs, batch.labels)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return loss and metric on the validation samples."""
        data = self.parts.validation
        return self._judge(_scores(model, data), data.labels)

    def test_outputs(self, model: nn.Module) -> Tensor:
        """Return the scores of the test samples, ``(n, classes)``."""
        return _scores(model, self.parts.test)

    def score(self, outputs: Tensor, rows: Tensor) -> dict[str, float]:
        """Return loss and metric on these test samples."""
        return self._judge(outputs[rows.to(outputs.device)], self.parts.test.labels[rows])

    def _judge(self, scores: Tensor, labels: Tensor) -> dict[str, float]:
        labels = labels.to(scores.device)
        loss = F.cross_entropy(scores, labels).item()
        return {"loss": loss, self.metric: _METRICS[self.metric](scores, labels)}


def _scores(model: nn.Module, data: Samples) -> Tensor:
    device = device_of(model)
    with evaluating(model):
        return torch.cat([model(part.to(device)) for part in torch.split(data.inputs, _CHUNK)])


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Return the share of samples whose label has the largest score."""
    return int((scores.argmax(1) == labels).sum().item()) / len(labels)


def average_precision(scores: Tensor, labels: Tensor) -> float:
    """Return the area below the precision-recall curve of class 1; NaN without its samples.

    Samples with equal scores are taken together.

    Args:
        scores: Shape ``(n, 2)``; class 1 is ranked by the difference of the two scores.
        labels: Zeros and ones of shape ``(n,)``.
    """
    ranked, order = (scores[:, 1] - scores[:, 0]).sort(descending=True)
    found = labels[order].double().cumsum(0)
    ends = torch.cat([ranked[1:] != ranked[:-1], ranked.new_ones(1, dtype=torch.bool)])
    places = ends.nonzero().squeeze(1)
    gained = found[places].diff(prepend=found.new_zeros(1))
    return ((found[places] / (places + 1)) * gained).sum().div(labels.sum()).item()


_METRICS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "accuracy": accuracy,
    "average_precision": average_precision,
}

"""Logistic regression on the breast-cancer data: convex, full batch, minimum known."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyorder.problems._data import sklearn_datasets, split
from anyorder.problems.base import (
    Problem,
    ProblemError,
    device_of,
    evaluating,
    require_number,
    seeded,
)


class _Split(NamedTuple):
    """Standardised features of shape ``(n, 30)`` and labels 0 or 1 of shape ``(n,)``, float64."""

    features: Tensor
    answers: Tensor


class Cancer(Problem):
    r"""Fit a logistic regression with an L2 penalty on the weights, in float64.

    With standardised features :math:`a_i`, labels :math:`y_i \in \{-1, 1\}` and :math:`n = 456`
    training samples, the loss is

    .. math:: f(w, b) = \frac1n \sum_i \log(1 + e^{-y_i (a_i^\top w + b)}) + \frac{l_2}{2} |w|^2.

    This problem is about optimisation, not generalisation: ``evaluate`` returns the training
    objective and its ``regret``, the distance to the minimum. Newton's method computes the
    minimum on first use, to less than 1e-10. ``test`` returns the accuracy on 113 held-out
    samples. Features are standardised with the statistics of the training part.

    Args:
        l2: Weight of the penalty, positive.

    Raises:
        ProblemError: If an option has a wrong value or scikit-learn is not installed.
    """

    name = "cancer"
    metric = "regret"
    target = 1e-4

    def __init__(self, *, l2: float = 1e-3) -> None:
        """Check and store the options."""
        # With a smaller penalty, float64 cannot determine the minimum to 1e-10.
        require_number("l2", l2, at_least=1e-8, owner=self.name)
        self.l2 = l2

    @cached_property
    def _parts(self) -> tuple[_Split, _Split]:
        """Training and test data."""
        table: Any = sklearn_datasets(self.name).load_breast_cancer()
        features = torch.tensor(table.data, dtype=torch.float64)
        answers = torch.tensor(table.target, dtype=torch.float64)
        test, train = split(len(answers), (113,), key="cancer")
        mean, std = features[train].mean(0), features[train].std(0, correction=0)
        features = (features - mean) / std
        return _Split(features[train], answers[train]), _Split(features[test], answers[test])

    @cached_property
    def optimum(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride] -- computed
        """The minimum of the loss, to less than 1e-10."""
        train = self._parts[0]
        return _minimum(train.features, train.answers, self.l2)

    def build(self, seed: int) -> nn.Module:
        """Return a linear layer 30-1 in float64 with the default initialisation of ``torch.nn``."""
        with seeded(seed):
            return nn.Linear(30, 1, dtype=torch.float64)

    def batch(self, seed: int, step: int) -> _Split:
        """Return the whole training part, for every seed and step."""
        return self._parts[0]

    def loss(self, model: nn.Module, batch: _Split) -> Tensor:
        """Return the objective; it is deterministic."""
        scores = model(batch.features).squeeze(1)
        # Penalise matrices only: this excludes the bias under any wrapper.
        weights = [p for p in model.parameters() if p.ndim > 1]
        penalty = torch.stack([w.square().sum() for w in weights]).sum()
        data_term = F.binary_cross_entropy_with_logits(scores, batch.answers)
        return data_term + 0.5 * self.l2 * penalty

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the training objective and its distance to the minimum."""
        device = device_of(model)
        train = _Split(*(part.to(device) for part in self._parts[0]))
        with evaluating(model):
            loss = self.loss(model, train).item()
        return {"loss": loss, "regret": loss - self.optimum}

    def test_outputs(self, model: nn.Module) -> Tensor:
        """Return the scores of the 113 test samples, ``(113,)``; positive means answer 1."""
        with evaluating(model):
            return model(self._parts[1].features.to(device_of(model))).squeeze(1)

    def score(self, outputs: Tensor, rows: Tensor) -> dict[str, float]:
        """Return the data term of the loss and the accuracy on these test samples."""
        scores = outputs[rows.to(outputs.device)]
        answers = self._parts[1].answers[rows].to(outputs.device)
        return {
            "loss": F.binary_cross_entropy_with_logits(scores, answers).item(),
            "accuracy": ((scores > 0) == (answers > 0)).double().mean().item(),
        }


def _minimum(features: Tensor, answers: Tensor, l2: float) -> float:
    """Minimise the objective by damped Newton steps; return its value there.

    The loop ends when half the squared Newton decrement is below 1e-13: close to the minimum this
    is the remaining distance in the loss, up to a factor near one.

    Args:
        features: Float64 of shape ``(n, d)``.
        answers: Float64 zeros and ones of shape ``(n,)``.
        l2: Weight of the penalty on all parameters except the bias.

    Raises:
        ProblemError: If 100 steps are not enough.
    """
    n, d = features.shape
    table = torch.cat([features, features.new_ones(n, 1)], dim=1)
    ridge = features.new_full((d + 1,), l2)
    ridge[-1] = 0.0
    point = features.new_zeros(d + 1)

    def value(at: Tensor) -> float:
        data_term = F.binary_cross_entropy_with_logits(table @ at, answers)
        return (data_term + 0.5 * (ridge * at.square()).sum()).item()

    current = value(point)
    for _ in range(100):
        chance = torch.sigmoid(table @ point)
        slope = table.T @ (chance - answers) / n + ridge * point
        curvature = (table.T * (chance * (1 - chance))) @ table / n + ridge.diag()
        newton = cast(Tensor, torch.linalg.solve(curvature, slope))  # pyright: ignore
        promise = 0.5 * (slope @ newton).item()
        if promise < 1e-13:
            return current
        length = 1.0
        while value(point - length * newton) > current - 0.5 * length * promise:
            length /= 2  # ends at the latest when the predicted decrease is below rounding
        point = point - length * newton
        current = value(point)
    raise ProblemError(f"cancer: Newton's method did not converge for l2={l2!r}; use a larger l2.")

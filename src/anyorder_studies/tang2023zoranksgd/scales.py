"""A real tuning task: ten length scales of a kernel regression."""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from anyorder.problems import Problem, evaluating
from anyorder.problems.base import generator

TRAINING, VALIDATION = 150, 146
RIDGE = 0.5


class LengthScales(Problem):
    r"""Choose the weights of ten measurements in a prediction of the progression of diabetes.

    Kernel ridge regression on scikit-learn's 442 patients, with
    :math:`k(x, y) = \exp(-\frac{1}{20} \sum_j e^{2 t_j} (x_j - y_j)^2)`. The ten :math:`t_j` are
    the hyper-parameters, with initial value zero; the loss is the mean squared error on 146
    validation patients, in units of the variance. The training set has 150 patients, the test set
    146.

    Args:
        split: Seed of the split of the patients.
    """

    name = "length-scales"
    metric = "loss"
    goal: ClassVar[Literal["min", "max"]] = "min"

    def __init__(self, *, split: int = 0) -> None:
        """Store the seed of the split."""
        self.split = split

    @cached_property
    def _parts(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Features and targets of the three parts, standardised with the training part."""
        features, answers = _patients()
        order = torch.randperm(len(answers), generator=generator(self.name, self.split))
        rows = order.split([TRAINING, VALIDATION, len(answers) - TRAINING - VALIDATION])
        mean, std = features[rows[0]].mean(0), features[rows[0]].std(0)
        level, spread = answers[rows[0]].mean(), answers[rows[0]].std()
        return tuple(((features[i] - mean) / std, (answers[i] - level) / spread) for i in rows)

    def build(self, seed: int) -> nn.Module:
        """The initial point: equal length scales, for every seed."""
        return Scales()

    def batch(self, seed: int, step: int) -> None:
        """``None``: every evaluation uses all patients."""
        return

    def loss(self, model: nn.Module, batch: None) -> Tensor:
        """Mean squared error on the validation part."""
        return self._error(model, 1)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The validation error."""
        with evaluating(model):
            return {"loss": self._error(model, 1).item()}

    def test(self, model: nn.Module) -> dict[str, float]:
        """The error on the test patients."""
        with evaluating(model):
            return {"loss": self._error(model, 2).item()}

    def _error(self, model: nn.Module, part: int) -> Tensor:
        (fitted, known), (asked, answers) = self._parts[0], self._parts[part]
        weights = torch.exp(model())
        here, there = fitted * weights, asked * weights
        ridge = RIDGE * torch.eye(len(known), dtype=torch.float64)
        solved = cast(Tensor, torch.linalg.solve(_kernel(here, here) + ridge, known))  # pyright: ignore
        return (_kernel(there, here) @ solved - answers).square().mean()


class Scales(nn.Module):
    """Ten logarithms of inverse length scales."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.zeros(10, dtype=torch.float64))

    def forward(self) -> Tensor:
        """The parameters."""
        return self.x


def _kernel(first: Tensor, second: Tensor) -> Tensor:
    squares = first.square().sum(1).unsqueeze(1) + second.square().sum(1)
    return torch.exp(-(squares - 2 * first @ second.T).clamp_min(0.0) / 20)


@cache
def _patients() -> tuple[Tensor, Tensor]:
    """Ten measurements of 442 patients, and the progression of the disease after one year."""
    from sklearn import datasets  # pyright: ignore[reportMissingTypeStubs]

    data: Any = datasets.load_diabetes()
    return torch.tensor(data.data), torch.tensor(data.target)

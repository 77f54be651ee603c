"""A real tuning task: ten hyper-parameters of gradient boosting."""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from anyorder.problems import Problem
from anyorder.problems.base import generator

TRAINING, VALIDATION = 190, 190


class _Range(NamedTuple):
    """Ends of a hyper-parameter, and how it is scaled between them."""

    low: float
    high: float
    log: bool
    whole: bool = False


# Options of scikit-learn's GradientBoostingClassifier. The two whole numbers are rounded.
RANGES = {
    "learning_rate": _Range(0.01, 1.0, True),
    "n_estimators": _Range(5, 40, True, True),
    "max_depth": _Range(1, 3, False, True),
    "subsample": _Range(0.3, 1.0, False),
    "max_features": _Range(0.05, 1.0, True),
    "min_samples_leaf": _Range(0.005, 0.2, True),
    "min_samples_split": _Range(0.01, 0.4, True),
    "min_weight_fraction_leaf": _Range(1e-3, 0.2, True),
    "min_impurity_decrease": _Range(1e-5, 0.1, True),
    "ccp_alpha": _Range(1e-6, 1e-2, True),
}


class Boosting(Problem):
    r"""Tune gradient boosting on the breast-cancer data by its validation loss.

    scikit-learn's 569 patients are split into 190 for training, 190 for validation and 189 for the
    test. Each of the ten options of :data:`RANGES` lies at the share :math:`1 / (1 + e^{-t_j})` of
    its range, so :math:`t = 0` is the middle of all. The loss is the mean cross-entropy of the
    validation patients. The classifier's own random numbers are the same in every evaluation, so
    the loss is a function of the parameters. It has no gradient: it is constant between the values
    at which a tree changes.

    Args:
        split: Seed of the split of the patients.
    """

    name = "boosting"
    metric = "loss"
    goal: ClassVar[Literal["min", "max"]] = "min"

    def __init__(self, *, split: int = 0) -> None:
        """Store the seed of the split."""
        self.split = split

    @cached_property
    def _parts(self) -> list[tuple[Any, Any]]:
        """Features and labels of the three parts."""
        features, labels = _patients()
        order = torch.randperm(len(labels), generator=generator(self.name, self.split)).numpy()
        parts = np.split(order, [TRAINING, TRAINING + VALIDATION])
        return [(features[rows], labels[rows]) for rows in parts]

    def build(self, seed: int) -> nn.Module:
        """The initial point: the middle of every range, for every seed."""
        return Point()

    def batch(self, seed: int, step: int) -> None:
        """``None``: every evaluation uses all patients."""
        return

    def loss(self, model: nn.Module, batch: None) -> Tensor:
        """Cross-entropy of the validation patients."""
        return torch.tensor(self._errors(model)[0], dtype=torch.float64)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The validation loss."""
        return {"loss": self._errors(model)[0]}

    def test(self, model: nn.Module) -> dict[str, float]:
        """The loss of the test patients."""
        return {"loss": self._errors(model)[1]}

    def _errors(self, model: nn.Module) -> list[float]:
        """Fit, then the losses of validation and test."""
        from sklearn.ensemble import (  # pyright: ignore[reportMissingTypeStubs]
            GradientBoostingClassifier,
        )

        (features, labels), *others = self._parts
        machine: Any = GradientBoostingClassifier(random_state=0, **options_at(model().detach()))
        machine.fit(features, labels)
        found: list[float] = []
        for asked, answers in others:
            chances = machine.predict_proba(asked)[np.arange(len(answers)), answers]
            found.append(float(-np.log(np.clip(chances, 1e-12, 1.0)).mean()))
        return found


class Point(nn.Module):
    """Ten numbers without bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.zeros(len(RANGES), dtype=torch.float64))

    def forward(self) -> Tensor:
        """The parameters."""
        # A sum, so that a shifted point is seen here too.
        return self.x + 0.0


def options_at(point: Tensor) -> dict[str, Any]:
    """The options of the classifier at a point.

    Args:
        point: Ten numbers; 0 is the middle of a range, shape ``(10,)``.
    """
    found: dict[str, Any] = {}
    for (name, ends), share in zip(RANGES.items(), point.sigmoid().tolist(), strict=True):
        low, high = ends.low, ends.high
        value = low * (high / low) ** share if ends.log else low + (high - low) * share
        found[name] = round(value) if ends.whole else min(value, high)
    return found


@cache
def _patients() -> tuple[Any, Any]:
    """30 measurements of 569 patients, and whether their tumour is benign."""
    from sklearn import datasets  # pyright: ignore[reportMissingTypeStubs]

    data: Any = datasets.load_breast_cancer()
    return data.data, data.target

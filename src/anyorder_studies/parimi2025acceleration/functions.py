"""Functions with known least and largest curvature, and how fast a method minimises them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyorder.methods.accelerated import Accelerated
from anyorder.problems import load
from anyorder_studies.study import StudyError


@dataclass(frozen=True)
class Smooth:
    """A function to minimise.

    Attributes:
        value: from a point of shape ``(n,)`` to a loss of shape ().
        mu: its least curvature, or a bound below it.
        smooth: its largest curvature, or a bound above it.
        minimum: where it is least, shape ``(n,)``, float64.
    """

    value: Callable[[Tensor], Tensor]
    mu: float
    smooth: float
    minimum: Tensor


def quadratic(condition: float, size: int = 200) -> Smooth:
    """A quadratic with ``size`` curvatures from 1 to ``condition``, evenly spaced in logarithm."""
    curvatures = torch.tensor(np.geomspace(1.0, condition, size))
    return Smooth(
        lambda x: (curvatures * x * x).sum() / 2,
        1.0,
        condition,
        torch.zeros(size, dtype=torch.float64),
    )


def pieces(size: int) -> Smooth:
    """The function of Lessard, Recht and Packard in each of ``size`` coordinates.

    Its gradient is 25 x below 1, x + 24 between 1 and 2, and 25 x - 24 above: curvatures 25, 1, 25.
    """

    def value(x: Tensor) -> Tensor:
        upper = torch.where(x < 2, x * x / 2 + 24 * x - 12, 12.5 * x * x - 24 * x + 36)
        return torch.where(x < 1, 12.5 * x * x, upper).sum()

    return Smooth(value, 1.0, 25.0, torch.zeros(size, dtype=torch.float64))


@cache
def _cancer() -> tuple[Tensor, Tensor]:
    """Standardised features with a column of ones, shape ``(n, 31)``, and answers 0 or 1."""
    batch = load("cancer").batch(0, 0)
    ones = torch.ones(len(batch.answers), 1, dtype=torch.float64)
    return torch.cat([batch.features, ones], dim=1), batch.answers


def ridge(condition: float) -> Smooth:
    r"""Logistic regression on the breast-cancer data with a ridge on all weights.

    The data term has curvatures between 0 and :math:`l = \lambda_{\max}(A^\top A) / 4n`; the ridge
    :math:`\mu = l / (\kappa - 1)` makes the bounds :math:`\mu` and :math:`L = l + \mu` stand in the
    ratio ``condition``.
    """
    table, answers = _cancer()
    spectrum = torch.linalg.eigvalsh(table.T @ table)  # pyright: ignore
    largest = cast(Tensor, spectrum)[-1].item() / (4 * len(answers))
    mu = largest / (condition - 1)

    def value(w: Tensor) -> Tensor:
        scores = table @ w
        return F.binary_cross_entropy_with_logits(scores, answers) + mu / 2 * (w * w).sum()

    return Smooth(value, mu, largest + mu, _newton(table, answers, mu))


def _newton(table: Tensor, answers: Tensor, mu: float) -> Tensor:
    """The minimum of the ridge regression by Newton's method from zero, which converges here.

    Raises:
        StudyError: If 50 steps do not end in one that is lost in rounding.
    """
    point = table.new_zeros(table.shape[1])
    for _ in range(50):
        chance = torch.sigmoid(table @ point)
        slope = table.T @ (chance - answers) / len(answers) + mu * point
        curvature = (table.T * (chance * (1 - chance))) @ table / len(answers)
        curvature = curvature + mu * torch.eye(len(point), dtype=torch.float64)
        step = cast(Tensor, torch.linalg.solve(curvature, slope))  # pyright: ignore
        point = point - step
        if step.norm() <= 1e-13 * point.norm():
            return point
    raise StudyError("the minimum of the ridge regression was not found in 50 Newton steps")


def prepared(function: Smooth, start: Tensor, form: str, known: bool) -> tuple[Tensor, Accelerated]:
    """A point and the method that moves it, told the constants or not."""
    x = nn.Parameter(start.clone())
    told = {"mu": function.mu, "L": function.smooth} if known else {}
    return x, Accelerated([("x", x)], form=form, engine="eager", **told)


def descent(
    function: Smooth,
    start: Tensor,
    form: str,
    *,
    known: bool = True,
    share: float = 1e-8,
    limit: int = 1_000_000,
) -> tuple[int, float]:
    """Steps until the answer is nearer to the minimum than ``share`` of the start.

    Args:
        function: what is minimised.
        start: where from, shape ``(n,)``.
        form: member of the family.
        known: whether it is told mu and L.
        share: of the first distance.
        limit: steps after which the study gives up.

    Returns:
        The number of steps, and the certificate's speed: digits per step over those promised; NaN
        where nothing is promised.

    Raises:
        StudyError: If ``limit`` steps do not suffice.
    """
    x, optimizer = prepared(function, start, form, known)
    near = share * (start - function.minimum).norm().item()
    for step in range(1, limit + 1):
        optimizer.step(lambda: function.value(x))
        with optimizer.answer():
            if (x.detach() - function.minimum).norm().item() <= near:
                speed = optimizer.certificate().speed
                return step, float("nan") if speed is None else speed
    raise StudyError(f"{form} did not come to {share} of its start in {limit} steps")

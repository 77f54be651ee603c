"""Functions with known curvature bounds, and the number of steps that a method needs."""

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
    """A function to minimize.

    Attributes:
        value: maps a point of shape ``(n,)`` to a loss of shape ().
        mu: its smallest curvature, or a lower bound.
        smooth: its largest curvature, or an upper bound.
        minimum: its minimiser, shape ``(n,)``, float64.
    """

    value: Callable[[Tensor], Tensor]
    mu: float
    smooth: float
    minimum: Tensor


def quadratic(condition: float, size: int = 200) -> Smooth:
    """A quadratic with ``size`` logarithmically spaced curvatures from 1 to ``condition``."""
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
    """Standardised features with a column of ones, shape ``(n, 31)``, and labels 0 or 1."""
    batch = load("cancer").batch(0, 0)
    ones = torch.ones(len(batch.answers), 1, dtype=torch.float64)
    return torch.cat([batch.features, ones], dim=1), batch.answers


def ridge(condition: float) -> Smooth:
    r"""Logistic regression on the breast-cancer data with a ridge penalty on all weights.

    The data term has curvatures between 0 and :math:`l = \lambda_{\max}(A^\top A) / 4n`; the ridge
    :math:`\mu = l / (\kappa - 1)` gives the bounds :math:`\mu` and :math:`L = l + \mu` the ratio
    ``condition``.
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
    """The minimiser of the ridge regression by Newton's method from zero, which converges here.

    Raises:
        StudyError: If 50 steps do not reach rounding errors.
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
    """Return a parameter and its optimizer, with or without known constants."""
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
    """Count the steps until the distance to the minimum is below ``share`` of the initial one.

    Args:
        function: the function to minimize.
        start: initial point, shape ``(n,)``.
        form: method of the family.
        known: whether mu and L are set.
        share: fraction of the initial distance.
        limit: maximum number of steps.

    Returns:
        The number of steps, and the certificate's speed: measured over theoretical digits per step;
        NaN without a theoretical rate.

    Raises:
        StudyError: If ``limit`` steps are not enough.
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

"""Logistic regression from the rankings of a noisy, inconsistent judge."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anyorder.problems.base import ProblemError, generator, require_number
from anyorder.problems.cancer import Cancer


class JudgedCancer(Cancer):
    r"""Fit the regression of ``cancer`` when a simulated judge ranks models and nothing else.

    The judge sees several models, one after another, and orders them by their loss :math:`f` on the
    training data, with two kinds of error.

    - Noise: the judge perceives the merit :math:`-f_i / T + G_i` with independent Gumbel variables
      :math:`G_i`, so that rankings follow the Plackett-Luce law and two models are ordered by the
      Bradley-Terry law: :math:`P(i \text{ before } j) = 1 / (1 + e^{(f_i - f_j) / T})`.
    - Inconsistency: the judge inserts each model into the ranking of the earlier ones, by comparing
      it with their worst, second worst, and so on, as long as it is better. In each comparison,
      with probability ``slips``, the judge prefers the model shown first without looking. So
      earlier positions are favoured, and comparisons contradict each other.

    ``evaluate`` and ``test`` are those of ``cancer``, without errors.

    Args:
        temperature: The noise :math:`T` in units of the loss; 0 for none.
        slips: Probability of a slip in a comparison, below 1.
        l2: Weight of the penalty, positive.

    Raises:
        ProblemError: If an option has a wrong value or scikit-learn is not installed.

    References:
        Bradley and Terry (1952), "Rank Analysis of Incomplete Block Designs"; Plackett (1975), "The
        Analysis of Permutations".
    """

    name = "judged-cancer"
    target = 0.03

    def __init__(self, *, temperature: float = 0.01, slips: float = 0.05, l2: float = 1e-3) -> None:
        """Check and store the options."""
        super().__init__(l2=l2)
        require_number("temperature", temperature, at_least=0.0, owner=self.name)
        require_number("slips", slips, at_least=0.0, owner=self.name)
        if slips >= 1:
            raise ProblemError(f"{self.name}: slips must be below 1; got {slips!r}.")
        self.temperature, self.slips = temperature, slips

    def judge(self, losses: Tensor, *, seed: int, step: int, question: int) -> list[int]:
        """Return a ranking with the errors of the judge."""
        numbers = generator(self.name, seed, step, question)
        merits = self._perceived(losses.cpu().double(), numbers)
        ranking: list[int] = []
        for shown in range(len(merits)):
            place = len(ranking)
            slips = torch.rand(place, generator=numbers) < self.slips
            while place and not slips[place - 1] and merits[shown] > merits[ranking[place - 1]]:
                place -= 1
            ranking.insert(place, shown)
        return ranking

    def _perceived(self, losses: Tensor, numbers: torch.Generator) -> list[float]:
        """Merits with Gumbel noise; a loss that is not a number has the least."""
        merits = -losses.nan_to_num(nan=math.inf)
        if self.temperature:
            uniform = torch.rand(len(losses), generator=numbers, dtype=torch.float64)
            merits = merits / self.temperature - torch.log(-torch.log(uniform))
        return merits.tolist()

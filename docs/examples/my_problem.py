"""Tell two interleaved spirals apart."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyorder.problems import Problem, evaluating, minibatch, seeded


class Spirals(Problem):
    """Classify points in the plane by the spiral they lie on."""

    metric = "accuracy"
    goal = "max"
    target = 0.95
    schedule = "cosine"

    def __init__(self, *, width: int = 32, noise: float = 0.05) -> None:
        """Make the data: 500 points for training, 250 for validation, 250 for the test."""
        self.width = width
        chance = torch.Generator().manual_seed(0)  # the data is the same in every run
        answers = torch.arange(1000) % 2
        turn = 2 * math.pi * torch.rand(1000, generator=chance).sqrt()
        angle = turn + math.pi * answers
        points = torch.stack([turn * angle.cos(), turn * angle.sin()], dim=1) / (2 * math.pi)
        points += noise * torch.randn(1000, 2, generator=chance)
        self.points, self.answers = points, answers.float()

    def build(self, seed: int) -> nn.Module:
        """Return a small network."""
        with seeded(seed):
            return nn.Sequential(
                nn.Linear(2, self.width),
                nn.Tanh(),
                nn.Linear(self.width, self.width),
                nn.Tanh(),
                nn.Linear(self.width, 1),
            )

    def batch(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Return 50 of the first 500 points."""
        rows = minibatch(500, 50, seed=seed, step=step)
        return self.points[rows], self.answers[rows]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean cross-entropy."""
        points, answers = batch
        return F.binary_cross_entropy_with_logits(model(points).squeeze(1), answers)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Judge on the validation points."""
        return self._judge(self._scores(model, slice(500, 750)), self.answers[500:750])

    def test_outputs(self, model: nn.Module) -> Tensor:
        """Return a score for each test point."""
        return self._scores(model, slice(750, 1000))

    def score(self, outputs: Tensor, rows: Tensor) -> dict[str, float]:
        """Judge some of the test points."""
        return self._judge(outputs[rows.to(outputs.device)], self.answers[750:][rows])

    def _scores(self, model: nn.Module, part: slice) -> Tensor:
        with evaluating(model):
            return model(self.points[part].to(next(model.parameters()).device)).squeeze(1)

    def _judge(self, scores: Tensor, answers: Tensor) -> dict[str, float]:
        answers = answers.to(scores.device)
        right = (scores > 0) == (answers > 0)
        return {
            "loss": F.binary_cross_entropy_with_logits(scores, answers).item(),
            "accuracy": right.float().mean().item(),
        }

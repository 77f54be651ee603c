"""Fine-tuning on rotated digits, with a network pretrained on upright ones."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.ndimage import rotate  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
from torch import Tensor, nn

from anyorder import SGD, AdamW, MeZO, Optimizer
from anyorder.problems import load, seeded
from anyorder_studies.contest import WORST, choose, descend, digits_training_loss

DEGREES = 30.0
BATCH = 64
WEIGHTS = 64 * 32 + 32 + 32 * 10 + 10
PRETRAINING_STEPS = 300
METHODS: dict[str, Any] = {"sgd": SGD, "mezo": MeZO}


class Turned(nn.Module):
    """Rotate 8 x 8 images, pixels of shape ``(n, 64)``, by :data:`DEGREES`, bilinearly."""

    matrix: Tensor

    def __init__(self) -> None:
        super().__init__()
        images = np.eye(64).reshape(64, 8, 8)
        turned = [rotate(image, DEGREES, reshape=False, order=1) for image in images]
        matrix = torch.tensor(np.stack(turned).reshape(64, 64), dtype=torch.float32)
        self.register_buffer("matrix", matrix)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the rotation matrix; interpolation is linear in the pixels."""
        return pixels @ self.matrix


def pretrained(seed: int) -> nn.Module:
    """Return a new copy of a network with layers 64-32-10 pretrained on upright digits."""
    model = _network(seed)
    model.load_state_dict(_weights(seed))
    return model


@cache
def tuned(method: str, steps: int, grid: tuple[float, ...], seeds: int, tuning: int = 0) -> float:
    """The step size with the lowest training loss on rotated digits."""

    def score(lr: float, seed: int) -> float:
        return float(fine_tuned(method, steps, lr, seed, every=steps)["losses"][-1])

    return choose(grid, score, seeds, tuning=tuning)


def fine_tuned(method: str, steps: int, lr: float, seed: int, *, every: int) -> dict[str, Any]:
    """Fine-tune on rotated digits with a constant step size.

    Args:
        method: ``"sgd"`` or ``"mezo"``.
        steps: Number of steps.
        lr: Step size.
        seed: Seed of the pretrained network, the batches and MeZO's directions.
        every: Number of steps between checks.

    Returns:
        ``checks`` (steps, from 0), ``losses`` (over all training images, nats), ``accuracies``
        (held-out images, percent) and ``forwards_per_step`` (the ledger's nominal cost). A run that
        diverges counts as the worst loss and the accuracy of a guess.
    """
    problem = load("digits", batch_size=BATCH)
    model = nn.Sequential(Turned(), pretrained(seed))
    optimizer: Optimizer = METHODS[method](model, lr=lr, seed=seed, engine="eager")
    checks, losses, accuracies = [0], [digits_training_loss(model)], [accuracy(model)]

    def watch(step: int) -> None:
        if step % every == 0:
            checks.append(step)
            losses.append(digits_training_loss(model))
            accuracies.append(accuracy(model))

    if not descend(problem, model, optimizer, steps=steps, seed=seed, cosine=False, after=watch):
        checks.append(steps)
        losses.append(WORST)
        accuracies.append(10.0)
    return {
        "checks": checks,
        "losses": losses,
        "accuracies": accuracies,
        "forwards_per_step": optimizer.calls.forwards() / max(1, optimizer.steps),
    }


def accuracy(model: nn.Module) -> float:
    """Accuracy in percent on the 600 held-out images."""
    problem = load("digits")
    parts = [problem.evaluate(model), problem.test(model)]
    return 50.0 * sum(part["accuracy"] for part in parts if part is not None)


def _network(seed: int) -> nn.Module:
    with seeded(seed):
        return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))


@cache
def _weights(seed: int) -> dict[str, Tensor]:
    """Weights after pretraining on upright digits."""
    model, problem = _network(seed), load("digits", batch_size=BATCH)
    optimizer = AdamW(model, lr=1e-2, weight_decay=0.0, engine="eager")
    descend(problem, model, optimizer, steps=PRETRAINING_STEPS, seed=seed)
    return model.state_dict()

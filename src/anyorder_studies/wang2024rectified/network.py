"""A small network for points in a few dimensions."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn


class PointNetwork(nn.Module):
    """Fully connected layers on a point and smooth features of its time.

    Args:
        dim: Dimension of a point.
        width: Width of the hidden layers.
        layers: Number of hidden layers.
        seed: Seed of the initial weights.
    """

    frequencies: Tensor

    def __init__(self, dim: int, *, width: int = 128, layers: int = 3, seed: int = 0) -> None:
        super().__init__()
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(4))
        sizes = [dim + 9, *[width] * layers]
        with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
            torch.random.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
            hidden = [
                part
                for left, right in pairwise(sizes)
                for part in (nn.Linear(left, right), nn.SiLU())
            ]
            self.layers = nn.Sequential(*hidden, nn.Linear(width, dim))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Prediction (n, dim) for points (n, dim) at times (n,)."""
        phases = t[:, None] * self.frequencies
        return self.layers(torch.cat([x, t[:, None], phases.sin(), phases.cos()], dim=1))

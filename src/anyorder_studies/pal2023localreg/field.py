"""A small network that computes the derivative of a state."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class NetworkField(nn.Module):
    """Layers with tanh in between, each with the time as an extra input, as in the paper's code.

    A layer multiplies its input ``[z, t]`` by one weight matrix; the column of ``t`` is stored
    separately, which is equivalent and avoids copies.

    Args:
        dim: Dimension of the state (last axis).
        width: Width of the hidden layers.
        hidden: Number of hidden layers.
        seed: Seed of the initial weights.
    """

    def __init__(self, dim: int, *, width: int = 64, hidden: int = 1, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        sizes = [dim, *[width] * hidden, dim]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        self.rates = nn.ParameterList()
        for before, after in pairwise(sizes):
            bound = 1.0 / math.sqrt(before + 1)
            for store, shape in (
                (self.weights, (after, before)),
                (self.biases, (after,)),
                (self.rates, (after,)),
            ):
                draw = torch.rand(shape, generator=generator, dtype=torch.float64)
                store.append(nn.Parameter((2.0 * draw - 1.0) * bound))

    def forward(self, t: float, z: Tensor) -> Tensor:
        """Derivative (..., dim) of a state (..., dim) at a time."""
        layers = list(zip(self.weights, self.biases, self.rates, strict=True))
        for i, (weight, bias, rate) in enumerate(layers):
            z = functional.linear(z, weight, torch.add(bias, rate, alpha=t))
            if i + 1 < len(layers):
                z = torch.tanh(z)
        return z

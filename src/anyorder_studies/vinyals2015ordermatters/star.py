"""A star-shaped graphical model: a head variable, and leaves that depend only on the head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anyorder_studies.vinyals2015ordermatters.inputs import OrderError


@dataclass(frozen=True)
class StarModel:
    """Probabilities of a head with ``k`` values and of leaves conditional on the head.

    Args:
        head: (k,), with sum 1.
        leaves: (number of leaves, k, k): leaf, value of the head, value of the leaf.
    """

    head: Tensor
    leaves: Tensor

    @classmethod
    def draw(cls, leaves: int, values: int, generator: torch.Generator) -> StarModel:
        """Draw a random model: a uniform head, and leaves with softmax of twice a standard normal.

        Raises:
            OrderError: If there is no leaf or only one value.
        """
        if leaves < 1 or values < 2:
            raise OrderError(f"expected a leaf and two values at least, got {leaves, values}")
        scores = torch.randn(leaves, values, values, generator=generator, dtype=torch.float64)
        head = torch.full((values,), 1.0 / values, dtype=torch.float64)
        return cls(head, (2.0 * scores).softmax(dim=-1))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw values (n, 1 + leaves), the head first."""
        head = torch.multinomial(self.head, n, replacement=True, generator=generator)
        drawn = [
            torch.multinomial(table[head], 1, generator=generator)[:, 0] for table in self.leaves
        ]
        return torch.stack([head, *drawn], dim=1)

    def log_prob(self, values: Tensor) -> Tensor:
        """Exact log-probability of values (n, 1 + leaves): (n,)."""
        head = values[:, 0]
        total = self.head[head].log()
        for table, leaf in zip(self.leaves, values[:, 1:].T, strict=True):
            total = total + table[head, leaf].log()
        return total

    def entropy(self) -> float:
        """Exact entropy in nats: the minimum mean loss of any model."""
        own = -(self.head * self.head.log()).sum()
        conditional = -(self.leaves * self.leaves.log()).sum(dim=-1)
        return float(own + (conditional * self.head).sum())

    def tokens(self, values: Tensor) -> Tensor:
        """Encode values (n, 1 + leaves) as a set of tokens: token ``variable * k + value``."""
        return values + len(self.head) * torch.arange(values.shape[1])

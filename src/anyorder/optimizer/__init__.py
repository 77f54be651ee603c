"""The base classes of methods: :class:`Optimizer`, and :class:`Population` for ask and tell."""

from __future__ import annotations

from anyorder.optimizer.base import CheckpointError, NeedsError, Optimizer
from anyorder.optimizer.population import Population

__all__ = ["CheckpointError", "NeedsError", "Optimizer", "Population"]

"""Memory of a transformer for inference and for training steps."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyorder import AdamW, MeZO, Optimizer
from anyorder.problems import seeded
from anyorder.problems.stdlib_lm import Size, Transformer

CONTEXT = 64
# The directions of a few past steps are kept; only a seed that was never used shows what a step
# needs.
_FRESH_SEEDS = itertools.count()


def peak_allocated(run: Callable[[], object]) -> int:
    """Peak number of bytes allocated on the CPU while ``run`` runs.

    Its result is kept alive until the end, and earlier allocations are not counted. Garbage is
    collected first: otherwise, collecting it during the run would reduce the count.
    """
    from torch.profiler import ProfilerActivity, profile

    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            kept = run()
    finally:
        if collects:
            gc.enable()
    held = highest = 0
    events: Any = record.profiler.kineto_results.events()  # type: ignore[union-attr]
    for event in events:
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    del kept
    return highest


def footprints(width: int, layers: int, batch: int) -> dict[str, int]:
    """Bytes of the weights plus the peak of other allocations.

    Args:
        width: Width of the transformer; heads are 64 wide.
        layers: Number of blocks.
        batch: Sequences of 64 tokens per batch.

    Returns:
        Bytes by operation: ``"weights"`` (none), ``"inference"`` (a forward pass without a graph),
        ``"mezo"`` (a step) and ``"adamw"`` (two steps, since the first creates its state).
    """
    with seeded(0):
        size = Size(width, layers, width // 64, batch, CONTEXT, 0)
        model: nn.Module = Transformer(size, attention="math", tied=False)
        tokens = torch.randint(256, (batch, CONTEXT + 1))

    def loss() -> Tensor:
        return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    def train(optimizer: Optimizer, steps: int) -> Optimizer:
        for _ in range(steps):
            optimizer.step(loss)
        return optimizer

    def step_of_mezo() -> Optimizer:
        return train(MeZO(model, lr=1e-6, seed=next(_FRESH_SEEDS), engine="eager"), 1)

    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    with torch.no_grad():
        loss()  # one-time allocations of a first call are not counted
        inference = peak_allocated(loss)
    step_of_mezo()
    train(AdamW(model, lr=1e-6, engine="eager"), 2)
    mezo = peak_allocated(step_of_mezo)
    adamw = peak_allocated(lambda: train(AdamW(model, lr=1e-6, engine="eager"), 2))
    return {
        "weights": weights,
        "inference": weights + inference,
        "mezo": weights + mezo,
        "adamw": weights + adamw,
    }

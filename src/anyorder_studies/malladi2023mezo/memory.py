"""Bytes that a transformer needs for inference and for steps of training."""

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
    """Most bytes that were allocated on the CPU and not yet freed while ``run`` ran.

    What it returns is kept until the end, and what existed before is not counted: were cyclic
    garbage of an earlier run collected in the middle of this one, its bytes would be taken off.
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
    """Bytes of weights plus the most that is allocated beside them.

    Args:
        width: Width of the transformer; heads are 64 wide.
        layers: Its blocks.
        batch: Sequences of 64 tokens per batch.

    Returns:
        By what is done: ``"weights"`` (nothing), ``"inference"`` (a forward pass without a
        graph), ``"mezo"`` (a step) and ``"adamw"`` (two steps, since the first makes its state).
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
        loss()  # what a first call makes once and for all is not counted
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

"""Runs of MeZO and ZO2 beside each other: weights, transfers, time, and narrow storage."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyorder import MeZO
from anyorder.offload import ZO2
from anyorder.problems import load, seeded
from anyorder.problems.stdlib_lm import Size, Transformer
from anyorder_studies.contest import descend
from anyorder_studies.malladi2023mezo.transfer import BATCH, Turned, accuracy, pretrained

CONTEXT = 64


def decoder(width: int, layers: int, seed: int) -> Transformer:
    """A decoder over bytes with a tied head. Heads are 16 wide."""
    with seeded(seed):
        size = Size(width, layers, width // 16, 1, CONTEXT, 0)
        return Transformer(size, attention="math", tied=True)


def closure_of(model: nn.Module, number: int) -> Callable[[], Tensor]:
    """The loss of batch ``number``, one sequence."""
    generator = torch.Generator().manual_seed(number)
    tokens = torch.randint(256, (1, CONTEXT + 1), generator=generator)

    def loss() -> Tensor:
        return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    return loss


def side_by_side(width: int, layers: int, steps: int, seed: int) -> dict[str, float]:
    """Train two equal decoders, one with MeZO and one with ZO2 with blocks in files.

    Returns:
        ``weight_difference`` and ``loss_difference`` (largest absolute values), and ``reads`` and
        ``writes`` per block and step.
    """
    one, two = decoder(width, layers, seed), decoder(width, layers, seed)
    options: dict[str, Any] = {"lr": 1e-3, "eps": 1e-3, "seed": seed, "engine": "eager"}
    with tempfile.TemporaryDirectory() as folder:
        mezo, zo2 = MeZO(one, **options), ZO2(two, folder=folder, **options)
        gaps = [
            abs(float(mezo.step(closure_of(one, step)) - zo2.step(closure_of(two, step))))
            for step in range(steps)
        ]
        visits = layers * steps
        counts = {"reads": zo2.traffic.reads / visits}
        zo2.flush()  # the last update
        counts["writes"] = zo2.traffic.writes / visits
        weights = two.state_dict()
        worst = max(float((weights[n] - t).abs().max()) for n, t in one.state_dict().items()
                    if t.is_floating_point())  # fmt: skip
    return {"weight_difference": worst, "loss_difference": max(gaps), **counts}


def times(width: int, layers: int, steps: int, seed: int) -> dict[str, float]:
    """Processor seconds of steps of MeZO and of ZO2 (blocks in host memory), in turn.

    Returns:
        ``seconds_mezo`` and ``seconds_zo2``.
    """
    models = {name: decoder(width, layers, seed) for name in ("mezo", "zo2")}
    options: dict[str, Any] = {"lr": 1e-6, "seed": seed, "engine": "eager"}
    optimizers: dict[str, Any] = {
        "mezo": MeZO(models["mezo"], **options),
        "zo2": ZO2(models["zo2"], **options),
    }
    spent = dict.fromkeys(models, 0.0)
    for step in range(steps + 1):
        for name, optimizer in optimizers.items():
            began = time.process_time()
            optimizer.step(closure_of(models[name], step))
            if step:  # the first one prepares
                spent[name] += time.process_time() - began
    return {f"seconds_{name}": value for name, value in spent.items()}


def fine_tuned(storage: str | None, steps: int, lr: float, seed: int) -> dict[str, float]:
    """Fine-tune a network on rotated digits with ZO2, its two layers being the blocks.

    Args:
        storage: ``"float16"``, or ``None`` for float32.
        steps: Number of steps.
        lr: Step size.
        seed: Seed of the pretrained network, the batches and the directions.

    Returns:
        ``before`` and ``after``: accuracy on held-out images in percent; that of a guess if the run
        diverged.
    """
    problem = load("digits", batch_size=BATCH)
    network: Any = pretrained(seed)
    model = nn.Sequential(Turned(), network)
    before = accuracy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of is what is measured
        optimizer = ZO2(
            model, blocks=[network[0], network[2]], storage=storage, lr=lr, seed=seed,
            engine="eager",
        )  # fmt: skip
    if not descend(problem, model, optimizer, steps=steps, seed=seed, cosine=False):
        return {"before": before, "after": 10.0}
    optimizer.close()
    return {"before": before, "after": accuracy(model)}

"""Sets of coordinates: random, with a share for each layer, and divided among processes."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise

import torch
from torch import Tensor


def drawn(seed: int, draw: int, name: str, numel: int, share: float) -> list[int]:
    """Return random flat indices of a parameter, in increasing order and without repetition.

    Args:
        seed: the run's seed.
        draw: how often the set was drawn anew.
        name: the parameter's name.
        numel: its number of elements.
        share: the fraction to draw; at least one element is drawn.
    """
    if share >= 1.0:
        return list(range(numel))
    text = f"coordinates/{seed}/{draw}/{name}".encode()
    number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)
    generator = torch.Generator(device="cpu").manual_seed(number)
    count = min(max(round(share * numel), 1), numel)
    order = torch.randperm(numel, generator=generator, device="cpu")
    return sorted(order[:count].tolist())


def layer_shares(
    scores: Mapping[str, Tensor], density: float, *, signed: bool = False
) -> dict[str, float]:
    """Return the share of each layer among the best ``density`` of all coordinates.

    Args:
        scores: a score per coordinate, ``-x * Hg`` of GraSP.
        density: the fraction of all coordinates to keep.
        signed: keep the smallest scores, as GraSP does, instead of the largest magnitudes.
    """
    ranks = {name: score if signed else -score.abs() for name, score in scores.items()}
    flat = torch.cat([rank.reshape(-1).double().cpu() for rank in ranks.values()])
    kept = torch.zeros(flat.numel(), dtype=torch.bool, device="cpu")
    kept[flat.argsort(stable=True)[: round(density * flat.numel())]] = True
    parts = kept.split([score.numel() for score in scores.values()])
    named = zip(scores, parts, strict=True)
    return {name: part.double().mean().item() if part.numel() else 0.0 for name, part in named}


def divided(costs: Sequence[float], processes: int) -> list[range]:
    """Return consecutive ranges of items, one per process, of about equal total cost."""
    ends = list(accumulate(costs))
    total = ends[-1] if ends else 0.0
    if total <= 0.0:
        ends, total = list(map(float, range(1, len(costs) + 1))), float(len(costs))
    middles = [end - (end - start) / 2 for start, end in zip([0.0, *ends], ends, strict=False)]
    owners = [min(int(middle / total * processes), processes - 1) for middle in middles]
    cuts = [sum(owner < rank for owner in owners) for rank in range(processes + 1)]
    return [range(a, b) for a, b in pairwise(cuts)]


@contextmanager
def moved(param: Tensor, index: int, step: float) -> Generator[float]:
    """Add ``step`` to one element; yields what was added after rounding.

    The element is restored from its saved value, so its bits stay what they were.

    Args:
        param: a tensor of any layout.
        index: the flat index of the element.
        step: the distance.
    """
    element = param.detach()
    for size in reversed(param.shape):  # a view of no axes
        element = element.select(-1, index % size)
        index //= size
    kept = element.clone()
    try:
        element.copy_(kept.double() + step)
        yield element.item() - kept.item()
    finally:
        element.copy_(kept)

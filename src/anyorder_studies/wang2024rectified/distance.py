"""Distance between two clouds of points."""

from __future__ import annotations

import torch
from torch import Tensor

from anyorder_studies.wang2024rectified.schedules import DiffusionError


def sliced_wasserstein(a: Tensor, b: Tensor, *, directions: int = 128, seed: int = 0) -> float:
    """Sliced 2-Wasserstein distance between two clouds of equal size.

    This is the square root of the mean, over random unit directions, of the squared 2-Wasserstein
    distance of the two projections, which sorting computes exactly.

    Args:
        a: Points (n, d).
        b: Points (n, d).
        directions: Number of directions.
        seed: Seed of the directions.

    Returns:
        The distance, in the unit of the points.

    Raises:
        DiffusionError: If the clouds differ in shape.

    Example:
        >>> points = torch.tensor([[0.0], [1.0]])
        >>> sliced_wasserstein(points, points + 2.0)
        2.0
    """
    if a.dim() != 2 or a.shape != b.shape:
        raise DiffusionError(
            f"expected two clouds of the same shape (n, d), got {tuple(a.shape)} and "
            f"{tuple(b.shape)}"
        )
    generator = torch.Generator().manual_seed(seed)
    lines = torch.randn(a.shape[1], directions, generator=generator, dtype=torch.float64)
    lines = lines / lines.square().sum(dim=0).sqrt()
    left, right = ((cloud.double() @ lines).sort(dim=0).values for cloud in (a, b))
    return float((left - right).square().mean().sqrt())

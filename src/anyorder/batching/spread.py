"""Variance between the gradients of parts of a batch, and the batch size it requires.

A batch of :math:`b` samples has the gradient :math:`g`, the mean of per-sample gradients
:math:`g_i`. Its variance is :math:`1/b` of the per-sample variance, so an accuracy determines a
batch size. Gradients may belong to single samples or to micro-batches of ``size`` samples each,
whose variance is ``1 / size`` of the per-sample variance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anyorder.model.sharding import full

Gradient = Sequence[Tensor | None]

#: Inner products with the mean need the gradients themselves: at most this many are kept. If there
#: are more, each one kept is the mean of several.
KEPT = 16
#: A quantile over coordinates uses about this many of them at most, evenly spaced.
COORDINATES = 1_000_000


@dataclass(frozen=True, slots=True)
class Spread:
    """Statistics of the gradients of one batch.

    Attributes:
        samples: samples in the batch, ``b``.
        square: ``|g|^2``.
        variance: per-sample variance, summed over coordinates.
        along: per-sample variance of ``<g_i, g>``; 0 unless gradients were kept.
        ratios: per-sample variance and ``g^2`` of each coordinate, flat, or None.
    """

    samples: int
    square: float
    variance: float
    along: float = 0.0
    ratios: tuple[Tensor, Tensor] | None = None

    @property
    def across(self) -> float:
        """Per-sample variance orthogonal to ``g``."""
        return max(self.variance - self.along / self.square, 0.0) if self.square else math.inf

    @property
    def finite(self) -> bool:
        """Whether all statistics are finite."""
        return all(map(math.isfinite, (self.square, self.variance, self.along)))


class Moments:
    """Running mean and variance of gradients (Welford, 1962; Chan, 1979).

    Args:
        size: number of samples per gradient.
        expected: total number of gradients, to divide them evenly among those kept.
        kept: keep gradients for inner products with the mean (at most :data:`KEPT`).
        coordinates: keep a variance for every coordinate.
    """

    def __init__(
        self, size: int, expected: int, *, kept: bool = False, coordinates: bool = False
    ) -> None:
        self.size, self.expected, self.count = size, expected, 0
        self._mean: list[Tensor | None] = []
        self._scatter = 0.0
        self._scatters: list[Tensor | None] | None = [] if coordinates else None
        self._blocks: list[tuple[int, list[Tensor | None]]] | None = [] if kept else None

    def add(self, gradient: Gradient) -> None:
        """Add one gradient; ``None`` counts as zero."""
        self.add_many([None if g is None else g.detach().unsqueeze(0) for g in gradient], 1)

    def add_many(self, stacks: Gradient, count: int) -> None:
        """Add ``count`` gradients, stacked along a new first axis of each tensor."""
        if not self._mean:
            self._mean = [None] * len(stacks)
            if self._scatters is not None:
                self._scatters = [None for _ in stacks]
        before, self.count = self.count, self.count + count
        share = before / self.count
        squares: list[Tensor] = []
        for index, stack in enumerate(stacks):
            mean = self._mean[index]
            if stack is None and mean is None:
                continue
            if stack is None:
                assert mean is not None
                stack = mean.new_zeros((count, *mean.shape))
            stack = stack.to(torch.promote_types(stack.dtype, torch.float32))
            new = stack.mean(0)
            old = torch.zeros_like(new) if mean is None else mean
            gap = new - old
            scatter = (stack - new).square().sum(0) + gap.square() * (count * share)
            squares.append(full(scatter.sum(dtype=torch.float64)))
            if self._scatters is not None:
                known = self._scatters[index]
                self._scatters[index] = scatter if known is None else known + scatter
            self._mean[index] = old + gap * (count / self.count)
        self._scatter += float(torch.stack(squares).sum()) if squares else 0.0
        if self._blocks is not None:
            for place in range(count):
                self._keep([None if s is None else s[place] for s in stacks], before + place)

    def _keep(self, gradient: list[Tensor | None], place: int) -> None:
        """Add gradient number ``place`` to its block."""
        assert self._blocks is not None
        blocks = min(KEPT, self.expected)
        index = min(place * blocks // self.expected, blocks - 1)
        if index == len(self._blocks):
            self._blocks.append((1, [None if g is None else g.detach().clone() for g in gradient]))
            return
        count, total = self._blocks[index]
        pairs = zip(total, gradient, strict=True)
        self._blocks[index] = (
            count + 1,
            [t if g is None else g if t is None else t + g for t, g in pairs],
        )

    def spread(self) -> Spread | None:
        """Return the statistics; None with fewer than two gradients, which have no variance."""
        if self.count < 2:
            return None
        degrees = self.count - 1
        ratios = None
        if self._scatters is not None:
            ratios = _thinned(self._scatters, self._mean, self.size / degrees)
        return Spread(
            self.count * self.size,
            _dot(self._mean, self._mean),
            self.size * self._scatter / degrees,
            self._along(),
            ratios,
        )

    def _along(self) -> float:
        """Per-sample variance of inner products with the mean, from the blocks."""
        if not self._blocks or len(self._blocks) < 2:
            return 0.0
        square = _dot(self._mean, self._mean)
        off = sum(
            count * (_dot(total, self._mean) / count - square) ** 2 for count, total in self._blocks
        )
        return self.size * off / (len(self._blocks) - 1)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The required accuracy of a batch's gradient.

    Args:
        test: ``norm``, ``inner_product``, ``augmented`` or ``coordinate``.
        eta: allowed standard deviation of ``g`` over ``|g|`` (``norm``, ``coordinate``).
        theta: allowed standard deviation of ``<g, grad f>`` over ``|g|^2``.
        nu: allowed standard deviation orthogonal to ``g``, over ``|g|`` (``augmented``).
        quantile: fraction of the coordinates that must pass (``coordinate``).
        unbiased: subtract the noise from ``|g|^2``.
    """

    test: str
    eta: float
    theta: float
    nu: float
    quantile: float
    unbiased: bool

    def needed(self, seen: Spread, population: float = math.inf) -> float:
        """Return the smallest batch size that would have passed this test; infinite if none would.

        Args:
            seen: the statistics of one batch.
            population: number of samples that batches are drawn from without replacement. A batch
                of b of N has 1 - b/N of the variance, so the result stays below N.
        """
        rest = max(1.0 - seen.samples / population, 0.0)
        noise = rest / seen.samples if self.unbiased else 0.0
        square = max(seen.square - seen.variance * noise, 0.0)
        size = self._norm(seen, square, noise)
        return size if math.isinf(population) else _of_finite(size, population)

    def _norm(self, seen: Spread, square: float, noise: float) -> float:
        if self.test == "norm":
            return _over(seen.variance, self.eta**2 * square)
        if self.test == "coordinate":
            assert seen.ratios is not None
            variances, squares = seen.ratios
            allowed = self.eta**2 * (squares - variances * noise).clamp_min(0.0)
            known = (variances / allowed)[variances > 0]
            if not known.numel():
                return 0.0
            place = math.ceil(self.quantile * known.numel())
            return float(known.kthvalue(max(place, 1)).values)
        along = _over(seen.along, self.theta**2 * square**2)
        if self.test == "inner_product":
            return along
        return max(along, _over(seen.across, self.nu**2 * square))


def _of_finite(size: float, population: float) -> float:
    """The size without replacement that has the variance of ``size`` with replacement."""
    return population if math.isinf(size) else size / (1.0 + size / population)


def _over(top: float, bottom: float) -> float:
    if top <= 0.0:
        return 0.0
    return top / bottom if bottom > 0.0 else math.inf


def _dot(left: Gradient, right: Gradient) -> float:
    products = [
        full((a.double() * b.double()).sum())
        for a, b in zip(left, right, strict=True)
        if a is not None and b is not None
    ]
    return float(torch.stack(products).sum()) if products else 0.0


def _thinned(scatters: Gradient, means: Gradient, scale: float) -> tuple[Tensor, Tensor]:
    """Per-sample variances and squared means of evenly spaced coordinates, concatenated."""
    total = sum(s.numel() for s in scatters if s is not None)
    every = max(total // COORDINATES, 1)
    pairs = [
        (full(s).flatten()[::every].double() * scale, full(m).flatten()[::every].double().square())
        for s, m in zip(scatters, means, strict=True)
        if s is not None and m is not None
    ]
    empty = torch.zeros(0, dtype=torch.float64)
    variances, squares = ([p[i].cpu() for p in pairs] for i in (0, 1))
    return torch.cat([empty, *variances]), torch.cat([empty, *squares])

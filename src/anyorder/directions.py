"""Directions as seeds: random vectors that are regenerated, never stored.

The value of an element is a pure function of (seed, step, index, parameter name, position). It
needs no generator state, so it is the same on every device, shard and process, and any stretch of
it can be made alone. Only integer operations and correctly rounded ``+ - * / sqrt`` are used (the
logarithm, sine and cosine are polynomials), so eager and compiled runs give the same bits.

Laws: ``normal`` (Box-Muller on a 32-bit counter hash), ``rademacher`` (signs).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from anyorder.engine import Engine
from anyorder.tensors import sqrt

Law = Literal["normal", "rademacher"]

#: Elements per block. Within a block the first half takes the cosines and the second half the
#: sines of the same pairs, so that one logarithm and one root serve two elements.
BLOCK = 1 << 17

_MASK = 0xFFFFFFFF


def _mix(x: Tensor, key: Tensor) -> Tensor:
    """A 32-bit integer hash with full avalanche: xor-shift and multiply, twice, keyed between.

    Multipliers are those of the two-round hash found by Ellis (2018) by search for least bias.
    Arithmetic shifts are masked, since torch has no logical shift of signed integers.
    """
    x = x ^ ((x >> 16) & 0xFFFF)
    x = (x * 0x7FEB352D) ^ key
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * (0x846CA68B - (1 << 32))
    return x ^ ((x >> 16) & 0xFFFF)


def _words(like: Tensor, start: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Two 32-bit words for each element of ``like``, counted from ``start``, under two keys."""
    counter = torch.arange(like.numel(), dtype=torch.int32, device=like.device)
    first = _mix((counter + start.to(torch.int32)) ^ low.to(torch.int32), high.to(torch.int32))
    # A second, independent word: hash again under the keys exchanged.
    return first, _mix(first ^ high.to(torch.int32), low.to(torch.int32))


# Coefficients of Chebyshev interpolants, lowest power first, rounded to float32. Largest errors on
# their intervals: 1e-7 (logarithm), 5e-7 (cosine), 9e-7 (sine), far below what randomness can show.
_LOG = (  # ln(m + 3/2) on [-1/2, 1/2]
    0.405465096,
    0.66666615,
    -0.222221926,
    0.0987914428,
    -0.049398385,
    0.0259697922,
    -0.0144105526,
    0.0102381799,
    -0.00600660499,
)
_COS = (  # cos(2 pi sqrt(s)) on [0, 1/4]
    1.0,
    -19.7392044,
    64.9391174,
    -85.4501114,
    60.1674309,
    -25.9668846,
    6.52770615,
)
_SIN = (  # sin(2 pi sqrt(s)) / sqrt(s) on [0, 1/4]
    6.28318548,
    -41.3417015,
    81.6051331,
    -76.7030029,
    42.0258522,
    -14.8995781,
    3.23778009,
)
_LN2 = 0.693147182


def _horner(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    value = x * coefficients[-1] + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        value = value * x + coefficient
    return value


def _normal_pair(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent standard normals from two 32-bit words (Box and Muller, 1958).

    The uniform is (k + 1/2) / 2^23 with k of 23 bits, exact in float32 and never 0 or 1: the
    largest value is 5.77 standard deviations.
    """
    uniform = ((first & 0x7FFFFF).float() + 0.5) * 2.0**-23
    word = uniform.view(torch.int32)
    exponent = ((word >> 23) - 127).float()
    mantissa = ((word & 0x7FFFFF) | 0x3F800000).view(torch.float32) - 1.5
    log = exponent * _LN2 + _horner(mantissa, _LOG)
    radius = sqrt((log * -2.0).clamp_min(0.0))
    turn = (second >> 8).float() * 2.0**-24  # 24 signed bits: [-1/2, 1/2)
    square = turn * turn
    return radius * _horner(square, _COS), radius * (turn * _horner(square, _SIN))


def _sign_pair(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    return (first & 1).float() * 2.0 - 1.0, (second & 1).float() * 2.0 - 1.0


def _add_normal(
    left: Tensor, right: Tensor, *, scale: Tensor, start: Tensor, low: Tensor, high: Tensor
) -> None:
    """``[left, right] += scale * z`` for one block of a normal direction, in place."""
    a, b = _normal_pair(*_words(left, start, low, high))
    left.add_(a * scale)
    right.add_(b * scale)


def _add_signs(
    left: Tensor, right: Tensor, *, scale: Tensor, start: Tensor, low: Tensor, high: Tensor
) -> None:
    """``[left, right] += scale * z`` for one block of a direction of signs, in place."""
    a, b = _sign_pair(*_words(left, start, low, high))
    left.add_(a * scale)
    right.add_(b * scale)


_RULES = {"normal": _add_normal, "rademacher": _add_signs}


@dataclass(frozen=True, slots=True)
class Seeded:
    """A random direction known by its seed alone.

    Args:
        seed: the run's seed.
        step: the step it belongs to.
        index: its number within the step.
        law: ``normal`` (standard normal) or ``rademacher`` (signs).
    """

    seed: int
    step: int
    index: int = 0
    law: Law = "normal"

    def keys(self, name: str) -> tuple[int, int]:
        """Two signed 32-bit keys for the parameter called ``name``."""
        text = f"{self.seed}/{self.step}/{self.index}/{name}".encode()
        words = hashlib.blake2b(text, digest_size=8).digest()
        low, high = (int.from_bytes(part, "little", signed=True) for part in (words[:4], words[4:]))
        return low, high

    def add_(self, name: str, out: Tensor, scale: float, engine: Engine) -> None:
        """``out += scale * z`` in place; ``out`` is contiguous, of any shape."""
        for start, stretch in blocks(out):
            self._add_block(name, stretch, start, scale, engine)

    def shifted(self, name: str, tensor: Tensor, scale: float, engine: Engine) -> Tensor:
        """``tensor + scale * z`` as a new contiguous tensor, block by block while in cache."""
        out = torch.empty_like(tensor, memory_format=torch.contiguous_format)
        if not tensor.is_contiguous():
            out.copy_(tensor)
            self.add_(name, out, scale, engine)
            return out
        for (start, target), (_, source) in zip(blocks(out), blocks(tensor), strict=True):
            target.copy_(source)
            self._add_block(name, target, start, scale, engine)
        return out

    def _add_block(
        self, name: str, stretch: Tensor, start: int, scale: float, engine: Engine
    ) -> None:
        low, high = self.keys(name)
        rule = _RULES[self.law]
        half = stretch.numel() // 2
        scalars = {
            key: torch.tensor(value, dtype=torch.float64)
            for key, value in (("scale", scale), ("start", start // 2), ("low", low), ("high", high))
        }
        if half:
            engine.run(rule, (stretch[:half], stretch[half : 2 * half]), scalars)
        if stretch.numel() % 2:  # the last element of an odd stretch is the first of its own pair
            scalars["start"] = torch.tensor(start // 2 + half, dtype=torch.float64)
            last = stretch[-1:]
            engine.run(rule, (last, torch.zeros_like(last)), scalars)

    def tensor(self, name: str, like: Tensor, engine: Engine | None = None) -> Tensor:
        """The direction itself, with the shape, dtype and device of ``like``."""
        out = torch.zeros_like(like, memory_format=torch.contiguous_format)
        self.add_(name, out, 1.0, engine or Engine("eager"))
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """A direction given as tensors by parameter name."""

    tensors: dict[str, Tensor]

    def add_(self, name: str, out: Tensor, scale: float, engine: Engine) -> None:
        """``out += scale * v`` in place."""
        out.copy_(self.shifted(name, out, scale, engine))

    def shifted(self, name: str, tensor: Tensor, scale: float, engine: Engine) -> Tensor:
        """``tensor + scale * v`` as a new tensor."""
        vector = self.tensors[name]
        wide = torch.promote_types(tensor.dtype, vector.dtype)
        return (tensor.to(wide) + scale * vector).to(tensor.dtype)


Direction = Seeded | Dense


@dataclass(frozen=True, slots=True)
class Shift:
    """A point near the present one: ``x + scale * direction``; without a direction, ``x``."""

    scale: float = 0.0
    direction: Direction | None = None

    def __bool__(self) -> bool:
        """Whether the point differs from the present one."""
        return self.direction is not None and self.scale != 0.0


def blocks(tensor: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Stretches of ``BLOCK`` elements of a contiguous tensor with their offsets."""
    flat = tensor.view(-1)
    for start in range(0, flat.numel(), BLOCK):
        yield start, flat[start : start + BLOCK]

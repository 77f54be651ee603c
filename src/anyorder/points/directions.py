"""Random directions stored as seeds: vectors are regenerated when needed.

The value of an element is a pure function of (seed, step, index, parameter name, position). There
is no generator state, so the value is the same on every device, shard and process, and any part of
a direction can be generated separately. Only integer operations and correctly rounded ``+ - * /
sqrt`` are used (the logarithm, sine and cosine are polynomials), so eager and compiled runs give
the same bits.

Distributions: ``normal`` (Box-Muller on a 32-bit counter hash), ``rademacher`` (signs), ``uniform``
(between 0 and 1, for masks). :mod:`anyorder.points.composed` makes further directions from these.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from anyorder.engine import Engine
from anyorder.engine.tensors import mix, sqrt

Law = Literal["normal", "rademacher", "uniform"]

#: Elements per block. The first half of a block uses the cosines and the second half the sines of
#: the same pairs, so two elements share one logarithm and one square root.
BLOCK = 1 << 17

#: Directions for parameters with at most this many elements are generated together: separate calls
#: would dominate their cost, and in a large model they use less memory than one layer.
SMALL = 4_096
#: Directions over small parameters are cached if they have at most this many elements in total.
CACHED = 1 << 16


def _words(like: Tensor, start: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Two 32-bit words for each element of ``like``, counted from ``start``, under two keys."""
    counter = torch.arange(like.numel(), dtype=torch.int32, device=like.device)
    return _hashed(counter + start.to(torch.int32), low, high)


def _hashed(counter: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Two words per counter; the second is a hash of the first with the keys swapped."""
    low, high = low.to(torch.int32), high.to(torch.int32)
    first = mix(counter.to(torch.int32) ^ low, high)
    return first, mix(first ^ high, low)


# Coefficients of Chebyshev interpolants, lowest power first, rounded to float32. Largest errors on
# their intervals: 1e-7 (logarithm), 5e-7 (cosine), 9e-7 (sine), far below the sampling noise.
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
    value = (x * coefficients[-1]).add_(coefficients[-2])
    for coefficient in coefficients[-3::-1]:
        value.mul_(x).add_(coefficient)
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


def _uniform_pair(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers ``(k + 1/2) / 2^23`` with k of 23 bits: never 0 or 1."""
    return (
        ((first & 0x7FFFFF).float() + 0.5) * 2.0**-23,
        ((second & 0x7FFFFF).float() + 0.5) * 2.0**-23,
    )


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


def _add_uniform(
    left: Tensor, right: Tensor, *, scale: Tensor, start: Tensor, low: Tensor, high: Tensor
) -> None:
    """``[left, right] += scale * z`` for one block of numbers between 0 and 1, in place."""
    a, b = _uniform_pair(*_words(left, start, low, high))
    left.add_(a * scale)
    right.add_(b * scale)


def _put_normal(left: Tensor, right: Tensor, counter: Tensor, low: Tensor, high: Tensor) -> None:
    """Normals of several parameters at once, each element with its own counter and keys."""
    a, b = _normal_pair(*_hashed(counter, low, high))
    left.copy_(a)
    right.copy_(b)


def _put_signs(left: Tensor, right: Tensor, counter: Tensor, low: Tensor, high: Tensor) -> None:
    """Signs of several parameters at once, each element with its own counter and keys."""
    a, b = _sign_pair(*_hashed(counter, low, high))
    left.copy_(a)
    right.copy_(b)


def _put_uniform(left: Tensor, right: Tensor, counter: Tensor, low: Tensor, high: Tensor) -> None:
    """Numbers between 0 and 1 of several parameters at once."""
    a, b = _uniform_pair(*_hashed(counter, low, high))
    left.copy_(a)
    right.copy_(b)


_ADD = {"normal": _add_normal, "rademacher": _add_signs, "uniform": _add_uniform}
_PUT = {"normal": _put_normal, "rademacher": _put_signs, "uniform": _put_uniform}


@dataclass(frozen=True, slots=True)
class Seeded:
    """A random direction, stored as a seed.

    Args:
        seed: the run's seed.
        step: the optimizer step.
        index: index of the direction within the step.
        law: distribution, ``normal`` (standard normal), ``rademacher`` (signs) or ``uniform``
            (between 0 and 1).
    """

    seed: int
    step: int
    index: int = 0
    law: Law = "normal"

    def keys(self, name: str) -> tuple[int, int]:
        """Two signed 32-bit keys for the parameter ``name``."""
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

    def add_all_(self, targets: Mapping[str, Tensor], scale: float, engine: Engine) -> None:
        """``target += scale * z`` in place for each parameter, rounded once."""
        small: dict[torch.device, dict[str, Tensor]] = {}
        for name, target in targets.items():
            if target.numel() <= SMALL:
                small.setdefault(target.device, {})[name] = target
            elif target.is_contiguous():
                self.add_(name, target, scale, engine)
            else:
                target.copy_(self.shifted(name, target, scale, engine))
        for chosen in small.values():
            for name, z in self.many(chosen, engine).items():
                chosen[name].copy_(shifted_by(chosen[name], z, scale))

    def many(self, like: Mapping[str, Tensor], engine: Engine) -> dict[str, Tensor]:
        """Generate the direction for several small parameters with one call of a rule, in float32.

        The values equal those of :meth:`tensor`; this is much cheaper for many small tensors.

        Args:
            like: parameters of at most ``BLOCK`` elements each, on one device.
            engine: runs the rule.
        """
        names, sizes = tuple(like), tuple(t.numel() for t in like.values())
        device = next(iter(like.values())).device
        make = _few if sum(sizes) <= CACHED else _few.__wrapped__
        flat = make(self, names, sizes, device, engine)
        named = zip(like.items(), flat.split_with_sizes(sizes), strict=True)
        return {name: piece.view(t.shape) for (name, t), piece in named}

    def _add_block(
        self, name: str, stretch: Tensor, start: int, scale: float, engine: Engine
    ) -> None:
        low, high = self.keys(name)
        rule = _ADD[self.law]
        half = stretch.numel() // 2
        scalars = {"scale": scale, "start": start // 2, "low": low, "high": high}
        if half:
            engine.run(rule, (stretch[:half], stretch[half : 2 * half]), scalars)
        if stretch.numel() % 2:  # an odd last element is the first of its own pair
            scalars["start"] += half
            last = stretch[-1:]
            engine.run(rule, (last, torch.zeros_like(last)), scalars)

    def tensor(self, name: str, like: Tensor, engine: Engine | None = None) -> Tensor:
        """Return the direction with the shape, dtype and device of ``like``."""
        out = torch.zeros_like(like, memory_format=torch.contiguous_format)
        self.add_(name, out, 1.0, engine or Engine("eager"))
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """A direction given as tensors by parameter name."""

    tensors: dict[str, Tensor]

    def add_all_(self, targets: Mapping[str, Tensor], scale: float, engine: Engine) -> None:
        """``target += scale * v`` in place for each parameter, rounded once."""
        for name, target in targets.items():
            target.copy_(self.shifted(name, target, scale, engine))

    def shifted(self, name: str, tensor: Tensor, scale: float, engine: Engine) -> Tensor:
        """``tensor + scale * v`` as a new tensor."""
        return shifted_by(tensor, self.tensors[name], scale)


class Direction(Protocol):
    """A direction in the space of the parameters: :class:`Seeded`, :class:`Dense` or composed."""

    def add_all_(self, targets: Mapping[str, Tensor], scale: float, engine: Engine) -> None:
        """``target += scale * z`` in place for each parameter, rounded once."""
        ...

    def shifted(self, name: str, tensor: Tensor, scale: float, engine: Engine) -> Tensor:
        """``tensor + scale * z`` for one parameter, as a new tensor."""
        ...


@dataclass(frozen=True, slots=True)
class Shift:
    """A point near the current one: ``x + scale * direction``; without a direction, ``x``."""

    scale: float = 0.0
    direction: Direction | None = None

    def __bool__(self) -> bool:
        """Whether the point differs from the current one."""
        return self.direction is not None and self.scale != 0.0


def shifted_by(tensor: Tensor, vector: Tensor, scale: float) -> Tensor:
    """``tensor + scale * vector``, computed in the wider dtype and rounded once to the tensor's."""
    if tensor.dtype is vector.dtype:
        return tensor + scale * vector
    wide = torch.promote_types(tensor.dtype, vector.dtype)
    return (tensor.to(wide) + scale * vector.to(wide)).to(tensor.dtype)


@functools.lru_cache(maxsize=32)
@torch.inference_mode(False)  # cached tensors may be used outside inference mode
def _few(
    direction: Seeded,
    names: tuple[str, ...],
    sizes: tuple[int, ...],
    device: torch.device,
    engine: Engine,
) -> Tensor:
    """A direction for small parameters, concatenated; cached for reuse within a step."""
    counter, owner, index = _pack(sizes, device)
    words = [*zip(*map(direction.keys, names), strict=True)]
    keys = torch.tensor(words, dtype=torch.int32, device=device)
    low, high = keys.index_select(1, owner).unbind()
    pair = torch.empty(2, counter.numel(), dtype=torch.float32, device=device)
    engine.run(_PUT[direction.law], (pair[0], pair[1], counter, low, high), {})
    return pair.view(-1).index_select(0, index)


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)
def _pack(sizes: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Layout of parameters in one call: counters, owners, and positions of the results.

    A parameter of n elements uses ceil(n/2) pairs: its first half are cosines, its second half
    sines, and an odd last element is the cosine of the last pair, as in :meth:`Seeded.add_`.
    """
    pairs = [(n + 1) // 2 for n in sizes]
    total = sum(pairs)
    numbers = functools.partial(torch.arange, device="cpu")
    counter = torch.cat([numbers(p, dtype=torch.int32) for p in pairs])
    counts = torch.tensor(pairs, dtype=torch.int64, device="cpu")
    owner = torch.repeat_interleave(numbers(len(sizes)), counts)
    places: list[Tensor] = []
    start = 0
    for n, p in zip(sizes, pairs, strict=True):
        cosines = numbers(start, start + p)
        places += [cosines[: n // 2], total + cosines[: n // 2], cosines[n // 2 :]]
        start += p
    return counter.to(device), owner.to(device), torch.cat(places).to(device)


def blocks(tensor: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield blocks of ``BLOCK`` elements of a contiguous tensor with their offsets."""
    flat = tensor.view(-1)
    for start in range(0, flat.numel(), BLOCK):
        yield start, flat[start : start + BLOCK]

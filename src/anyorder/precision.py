"""In which precision a buffer is kept between steps: formats that a rule never sees.

A rule works on float32 (or float64) tensors. A format says how such a tensor is stored, in one or
two tensors, and how it is read and written: as it is, in bfloat16 with stochastic rounding, or in
8 bits with one scale for each block.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from anyorder.tensors import HALF, mix

State = Literal["fp32", "bf16", "8bit"]
Parts = tuple[Tensor, ...]

#: Parameters with fewer elements keep 32-bit state: they weigh nothing, and norms and biases are
#: what suffers first. The number is that of Dettmers et al. (2022).
SMALLEST_8BIT = 4_096


@dataclass(frozen=True, slots=True)
class Plain:
    """One tensor of the values themselves; half precision is read as float32, rounded to nearest.

    Attributes:
        random: whether writing needs random bits.
        block: elements that share a scale; 0 where none do.
    """

    random = False
    block = 0
    parts = 1

    def zeros(self, size: int, like: Tensor) -> Parts:
        """``size`` zeros on the device of ``like`` and in its dtype, but at least in float32."""
        dtype = torch.float32 if like.dtype in HALF else like.dtype
        return (torch.zeros(size, dtype=dtype, device=like.device),)

    def read(self, stored: Parts) -> Tensor:
        """The values; the stored tensor itself where that needs no widening."""
        (values,) = stored
        return values.float() if values.dtype in HALF else values

    def write_(self, stored: Parts, values: Tensor, noise: Tensor | None) -> None:
        """Store ``values``; nothing is left to do where they are the stored tensor."""
        if stored[0] is not values:
            stored[0].copy_(values)


@dataclass(frozen=True, slots=True)
class Stochastic(Plain):
    """bfloat16, rounded up or down at random so that the mean is exact.

    A float32 number lies between two bfloat16 neighbours, which differ in its upper 16 bits; adding
    16 random bits and cutting the lower ones off goes up as often as the value is near the upper.
    """

    random = True

    def zeros(self, size: int, like: Tensor) -> Parts:
        """``size`` zeros in bfloat16."""
        return (torch.zeros(size, dtype=torch.bfloat16, device=like.device),)

    def write_(self, stored: Parts, values: Tensor, noise: Tensor | None) -> None:
        """Store ``values``; ``noise`` holds one int32 per element, of which 16 bits are used."""
        assert noise is not None
        bits = values.view(torch.int32) + (noise & 0xFFFF)
        stored[0].copy_((bits & -0x10000).view(torch.float32))


@dataclass(frozen=True, slots=True)
class Blockwise:
    """8 bits a value: the position in a fixed table, times the largest magnitude of the block.

    Stored tensors: codes, uint8, shape (blocks, block), and scales, float32, shape (blocks, 1).
    Values have the shape of the codes.

    Attributes:
        signed: whether values have both signs; the other table is twice as fine.
        block: elements that share a scale.
    """

    signed: bool
    block: int

    random = False
    parts = 2

    def zeros(self, size: int, like: Tensor) -> Parts:
        """Zeros; the last block may be longer than what is needed of it."""
        blocks = -(-size // self.block)
        zero = int(torch.searchsorted(table(self.signed), 0.0))
        codes = torch.full((blocks, self.block), zero, dtype=torch.uint8, device=like.device)
        return codes, torch.zeros((blocks, 1), dtype=torch.float32, device=like.device)

    def read(self, stored: Parts) -> Tensor:
        """The values, float32."""
        codes, scales = stored
        return _picked(_on(codes.device, table, self.signed), codes.int()) * scales

    def write_(self, stored: Parts, values: Tensor, noise: Tensor | None) -> None:
        """Store the nearest values the table has.

        A positive value of an unsigned buffer never becomes zero: it is a second moment, by whose
        root somebody will divide.
        """
        codes, scales = stored
        most = values.abs().amax(1, keepdim=True)
        shares = values / torch.where(most == 0, 1.0, most)
        nearest = encode(shares, self.signed)
        if not self.signed:
            nearest = torch.maximum(nearest, (values > 0).to(torch.int32))
        codes.copy_(nearest.to(torch.uint8))
        scales.copy_(most)


Format = Plain | Blockwise
PLAIN, STOCHASTIC = Plain(), Stochastic()


@functools.cache
def table(signed: bool) -> Tensor:
    """The 256 values of the dynamic map in rising order, float32.

    Seven decades ending at 1, decade ``i`` divided into ``2**i`` cells (twice as many without
    negative values) whose midpoints are taken, and 0 and 1 (Dettmers et al., 2022, section 2.2).
    """
    positive: list[float] = []
    for i in range(7):
        cells = 2**i if signed else 2 ** (i + 1)
        positive += [(0.1 + 0.9 * (k + 0.5) / cells) * 10.0 ** (i - 6) for k in range(cells)]
    values = [*positive, 0.0, 1.0, *([-v for v in positive] if signed else [])]
    return torch.tensor(sorted(values), dtype=torch.float64).float()


@functools.cache
def middles(signed: bool) -> Tensor:
    """The 255 points halfway between neighbours of the table, float32, and infinity."""
    values = table(signed).double()
    halfway = ((values[1:] + values[:-1]) / 2).float()
    return torch.cat([halfway, torch.tensor([torch.inf])])


@functools.cache
def starts(signed: bool) -> Tensor:
    """For the upper 16 bits of a float32 number: how many middles lie below all such numbers.

    At most one middle lies among them, so one more comparison finds the nearest code. Shape
    (65536,), int32.
    """
    upper = torch.arange(1 << 16, dtype=torch.int32) << 16
    ends = torch.stack([upper, upper | 0xFFFF]).view(torch.float32)
    low = torch.searchsorted(middles(signed), ends.nan_to_num(0.0).amin(0))
    return low.clamp(max=255).to(torch.int32)


def encode(shares: Tensor, signed: bool) -> Tensor:
    """The positions of the nearest values of the table, int32.

    Args:
        shares: float32 values within [-1, 1], any shape.
        signed: which table.
    """
    device = shares.device
    upper = (shares.contiguous().view(torch.int32) >> 16) & 0xFFFF
    below = _picked(_on(device, starts, signed), upper)
    return below + (shares > _picked(_on(device, middles, signed), below)).to(torch.int32)


def _picked(values: Tensor, places: Tensor) -> Tensor:
    return values.index_select(0, places.view(-1)).view(places.shape)


@functools.cache
def _on(device: torch.device, made: object, signed: bool) -> Tensor:
    return made(signed).to(device)  # type: ignore[operator]


def noise_for(count: int, low: Tensor, high: Tensor, start: Tensor, device: torch.device) -> Tensor:
    """Random 32-bit words for elements ``start`` and following, int32, by counter and keys."""
    counter = torch.arange(count, dtype=torch.int32, device=device) + start.to(torch.int32)
    return mix(counter ^ low.to(torch.int32), high.to(torch.int32))


def format_for(state: State, size: int, *, nonnegative: bool, block: int) -> Format:
    """How a buffer of ``size`` elements is kept under the option ``state``."""
    if state == "bf16":
        return STOCHASTIC
    if state == "8bit" and size >= SMALLEST_8BIT:
        return Blockwise(not nonnegative, block)
    return PLAIN

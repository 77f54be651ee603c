"""Storage formats: the precision in which a buffer is kept between steps.

A rule computes on float32 (or float64) tensors, whatever the format. A format defines how such a
tensor is stored, in one or two tensors, and how it is read and written: unchanged, in bfloat16 with
stochastic rounding, or in 8 bits with one scale per block.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from anyorder.engine.tensors import HALF, mix

State = Literal["fp32", "bf16", "8bit"]
Parts = tuple[Tensor, ...]

#: Parameters with fewer elements keep 32-bit state: they use little memory, and norms and biases
#: are the most sensitive to quantization. The threshold is that of Dettmers et al. (2022).
SMALLEST_8BIT = 4_096


@dataclass(frozen=True, slots=True)
class Plain:
    """Values stored unchanged in one tensor; half precision is read as float32, rounded to nearest.

    Attributes:
        random: whether writing needs random bits.
        block: number of elements that share a scale; 0 if none do.
    """

    random = False
    block = 0
    parts = 1

    @torch.inference_mode(False)  # state outlives the inference mode of a first step
    def zeros(self, size: int, like: Tensor) -> Parts:
        """``size`` zeros on the device of ``like`` and in its dtype, but at least in float32."""
        dtype = torch.float32 if like.dtype in HALF else like.dtype
        return (torch.zeros(size, dtype=dtype, device=like.device),)

    def read(self, stored: Parts) -> Tensor:
        """Return the values; the stored tensor itself if its dtype needs no widening."""
        (values,) = stored
        return values.float() if values.dtype in HALF else values

    def write_(self, stored: Parts, values: Tensor, noise: Tensor | None) -> None:
        """Store ``values``; a no-op if they are the stored tensor."""
        if stored[0] is not values:
            stored[0].copy_(values)


@dataclass(frozen=True, slots=True)
class Stochastic(Plain):
    """bfloat16, rounded up or down at random so that the mean is exact.

    A float32 number lies between two bfloat16 neighbours, which differ in its upper 16 bits. Adding
    16 random bits and truncating rounds up with a probability proportional to the distance from the
    lower neighbour.
    """

    random = True

    @torch.inference_mode(False)
    def zeros(self, size: int, like: Tensor) -> Parts:
        """``size`` zeros in bfloat16."""
        return (torch.zeros(size, dtype=torch.bfloat16, device=like.device),)

    def write_(self, stored: Parts, values: Tensor, noise: Tensor | None) -> None:
        """Store ``values``; ``noise`` is int32 of the same shape, whose lower 16 bits are used."""
        assert noise is not None
        bits = values.view(torch.int32) + (noise & 0xFFFF)
        stored[0].copy_((bits & -0x10000).view(torch.float32))


@dataclass(frozen=True, slots=True)
class Blockwise:
    """8 bits per value: an index into a fixed table, scaled by the largest magnitude of the block.

    Stored tensors: codes, uint8, shape (blocks, block), and scales, float32, shape (blocks, 1).
    Values have the shape of the codes.

    Attributes:
        signed: whether values have both signs; the unsigned table is twice as fine.
        block: number of elements that share a scale.
    """

    signed: bool
    block: int

    random = False
    parts = 2

    @torch.inference_mode(False)
    def zeros(self, size: int, like: Tensor) -> Parts:
        """Zeros; the last block may be padded."""
        blocks = -(-size // self.block)
        zero = int(torch.searchsorted(table(self.signed), 0.0))
        codes = torch.full((blocks, self.block), zero, dtype=torch.uint8, device=like.device)
        return codes, torch.zeros((blocks, 1), dtype=torch.float32, device=like.device)

    def read(self, stored: Parts) -> Tensor:
        """The values, float32."""
        codes, scales = stored
        return decode(codes, self.signed) * scales

    def write_(self, stored: Parts, values: Tensor, noise: Tensor | None) -> None:
        """Store the nearest values of the table.

        A positive value of an unsigned buffer never becomes zero: it is a second moment, whose
        square root is used as a divisor.
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


# The dynamic map ------------------------------------------------------------------------------
#
# Seven decades ending at 1, decade i divided into 2**i cells (twice as many without negative
# values), represented by their midpoints, and 0 and 1 (Dettmers et al., 2022, section 2.2). Counted
# from zero upwards the indices of a decade are 2**i + k. Compiled programs compute the map with
# this formula, since vector units cannot look up tables; eager ones look up tables built with the
# same arithmetic, so both give the same bits. Tables are cached for the life of the process, so
# they are built as ordinary tensors on an explicit device, whatever mode or default device is
# active at first use.


def decode(codes: Tensor, signed: bool) -> Tensor:
    """Return the values of the map at these indices, float32."""
    if torch.compiler.is_compiling():
        return _decoded(codes, signed)
    return _picked(_on(codes.device, table, signed), codes.int())


def encode(shares: Tensor, signed: bool) -> Tensor:
    """Return the indices of the nearest values of the map, int32.

    Args:
        shares: float32 values within [-1, 1], any shape.
        signed: which map.
    """
    if torch.compiler.is_compiling():
        return _encoded(shares, signed)
    device = shares.device
    upper = (shares.contiguous().view(torch.int32) >> 16) & 0xFFFF
    below = _picked(_on(device, starts, signed), upper)
    return below + (shares > _picked(_on(device, middles, signed), below)).to(torch.int32)


def _decoded(codes: Tensor, signed: bool) -> Tensor:
    steps = codes.float() - 127.0 if signed else codes.float() + 1.0
    place = steps.abs()
    first = 0 if signed else 1  # decade 0 has 2**first cells
    # On decade i the map rises by 0.9 * 10**(i - 6) / 2**(i + first) per index, five times as much
    # as on the previous one, and both lines meet half an index below its beginning.
    slope = 0.9e-6 / 2**first
    values = (place - (2.0**first - 0.5)) * slope + 0.1e-6
    for i in range(1, 7):
        slope *= 5.0
        values = values + (place - (2.0 ** (i + first) - 0.5)).relu() * (0.8 * slope)
    values = values.relu().clamp(max=1.0)
    return values * steps.clamp(-1.0, 1.0) if signed else values


def _encoded(shares: Tensor, signed: bool) -> Tensor:
    size = shares.abs() if signed else shares
    first = 0 if signed else 1
    slope = torch.full_like(size, 1e6 / 0.9)
    cells = torch.full_like(size, 2.0**first)
    for i in range(6):  # halfway to the next value: one more cell
        beyond = size > (1.0 + 0.9 / 2 ** (i + first)) * 10.0 ** (i - 6)
        slope = torch.where(beyond, 10.0 ** (5 - i) / 0.9, slope)
        cells = torch.where(beyond, 2.0 ** (i + 1 + first), cells)
    place = ((size * slope + 8.0 / 9.0) * cells).floor()
    place = torch.minimum(place, 2.0 * cells - 1.0)
    least = (0.1 + 0.45 / 2**first) * 1e-6
    place = torch.where(size > least / 2, place, float(first))
    place = torch.where(shares > 1.0 - 0.225 / 2 ** (6 + first), 128.0 * 2**first, place)
    steps = place.to(torch.int32)
    return 127 + torch.where(shares < 0, -steps, steps) if signed else steps - 1


@functools.cache
@torch.inference_mode(False)
def table(signed: bool) -> Tensor:
    """The 256 values of the map in ascending order, float32."""
    return _decoded(torch.arange(256, device="cpu"), signed)


@functools.cache
@torch.inference_mode(False)
def middles(signed: bool) -> Tensor:
    """The largest float32 number of each index, by bisection; infinity for the last."""
    places = torch.arange(255, device="cpu")
    low, high = table(signed)[:-1].clone(), table(signed)[1:].clone()
    for _ in range(160):  # bisect until the two are neighbours, also across zero
        between = low + (high - low) / 2
        inside = _encoded(between, signed) <= places
        low = torch.where(inside, between, low)
        high = torch.where(inside, high, between)
    return torch.cat([low, torch.tensor([torch.inf], dtype=torch.float32, device="cpu")])


@functools.cache
@torch.inference_mode(False)
def starts(signed: bool) -> Tensor:
    """For the upper 16 bits of a float32 number: how many boundaries lie below all such numbers.

    At most one boundary lies among them, so one more comparison finds the index. Shape (65536,),
    int32.
    """
    upper = torch.arange(1 << 16, dtype=torch.int32, device="cpu") << 16
    ends = torch.stack([upper, upper | 0xFFFF]).view(torch.float32)
    low = torch.searchsorted(middles(signed), ends.nan_to_num(0.0).amin(0))
    return low.clamp(max=255).to(torch.int32)


def _picked(values: Tensor, places: Tensor) -> Tensor:
    return values.index_select(0, places.view(-1)).view(places.shape)


@functools.cache
@torch.inference_mode(False)
def _on(device: torch.device, made: object, signed: bool) -> Tensor:
    return made(signed).to(device)  # type: ignore[operator]


def noise_for(count: int, low: Tensor, high: Tensor, start: Tensor, device: torch.device) -> Tensor:
    """Random 32-bit words for elements from ``start`` on, int32, by counter and keys."""
    counter = torch.arange(count, dtype=torch.int32, device=device) + start.to(torch.int32)
    return mix(counter ^ low.to(torch.int32), high.to(torch.int32))


def format_for(state: State, size: int, *, nonnegative: bool, block: int) -> Format:
    """Return the format of a buffer of ``size`` elements under the option ``state``."""
    if state == "bf16":
        return STOCHASTIC
    if state == "8bit" and size >= SMALLEST_8BIT:
        return Blockwise(not nonnegative, block)
    return PLAIN

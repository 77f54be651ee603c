"""One byte for one scalar; the scale follows from the bytes of earlier steps.

Every worker reads the same bytes, so every worker computes the same scale, and no scale is ever
sent. A byte is a sign and one of 127 levels, or zero, or :data:`NOTHING`:

- ``linear``: equal steps up to a clip of 4 times the running median of the magnitudes;
- ``log``: 8 levels per factor of 2 up to a clip of 64 times the median, for heavy tails;
- the first step has no median yet: 2 levels per factor of 2, from 2^-31 to 2^31.

A scalar beyond the clip becomes the clip, whoever sends it. Numbers are computed with exactly
rounded operations and a table, so all machines decode the same bits.
"""

from __future__ import annotations

import math
import statistics
import struct
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Literal

from anyorder.errors import AnyOrderError

Code = Literal["linear", "log", "float32"]

#: Bytes per scalar.
SIZES: dict[str, int] = {"linear": 1, "log": 1, "float32": 4}
#: The byte of a direction whose loss was not finite: it moves nothing.
NOTHING = -128
LEVELS = 127
#: The clip, in multiples of the running median.
CLIP = {"linear": 4.0, "log": 64.0}
#: Number of scalars over which the median runs.
WINDOW = 128
#: Bounds of the clip. A median that falls to zero would never rise again.
SMALLEST, LARGEST = 2.0**-100, 2.0**100
_EIGHTHS = (
    1.0,
    1.0905077326652577,
    1.189207115002721,
    1.2968395546510096,
    1.4142135623730951,
    1.5422108254079407,
    1.6817928305074292,
    1.8340080864093424,
)  # 2^(i/8)


class MessageError(AnyOrderError, ValueError):
    """A message that is not what this step's code allows."""


def power(eighths: int) -> float:
    """``2 ** (eighths / 8)``, with the same bits on every machine."""
    return math.ldexp(_EIGHTHS[eighths % 8], eighths // 8)


class Quantiser:
    """Encodes the scalars of a step and learns the scale of the next one.

    Args:
        code: ``linear``, ``log`` or ``float32`` (four bytes, exact).
        seen: magnitudes of earlier scalars, oldest first.
    """

    def __init__(self, code: Code = "linear", seen: Iterable[float] = ()) -> None:
        self.code: Code = code
        self.seen: deque[float] = deque(seen, maxlen=WINDOW)

    def clip(self) -> float:
        """Return the largest magnitude that a byte of this step can stand for."""
        if self.code == "float32":
            return math.inf
        if not self.seen:
            return _magnitude("first", LEVELS, 1.0)
        return min(max(CLIP[self.code] * statistics.median_low(self.seen), SMALLEST), LARGEST)

    def encode(self, scalars: Sequence[float]) -> bytes:
        """Return the message of these scalars; what is not finite becomes :data:`NOTHING`."""
        if self.code == "float32":
            return struct.pack(f"<{len(scalars)}f", *scalars)
        clip, code = self.clip(), self._byte_code
        levels = [
            NOTHING if not math.isfinite(g) else _sign(g) * _level(code, abs(g), clip)
            for g in scalars
        ]
        return struct.pack(f"{len(levels)}b", *levels)

    def decode(self, message: bytes) -> list[float | None]:
        """Return the scalars of a message, ``None`` for :data:`NOTHING`."""
        if self.code == "float32":
            numbers = struct.unpack(f"<{len(message) // 4}f", message)
            return [g if math.isfinite(g) else None for g in numbers]
        clip, code = self.clip(), self._byte_code
        return [
            None if k == NOTHING else _sign(k) * _magnitude(code, abs(k), clip)
            for k in struct.unpack(f"{len(message)}b", message)
        ]

    def learn(self, messages: Iterable[bytes]) -> None:
        """Add the scalars of a step, in the order of the workers, to the running median."""
        if self.code == "float32":
            return
        clip, code = self.clip(), self._byte_code
        for message in messages:
            for k in struct.unpack(f"{len(message)}b", message):
                if k != NOTHING:  # a scalar rounded to zero counts as half of the lowest level
                    lowest = _magnitude(code, 1, clip) / 2
                    self.seen.append(_magnitude(code, abs(k), clip) or lowest)

    @property
    def _byte_code(self) -> str:
        return self.code if self.seen else "first"


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)


def _magnitude(code: str, level: int, clip: float) -> float:
    if level == 0:
        return 0.0
    if code == "linear":
        return clip * level / LEVELS
    return power(4 * (level - 64)) if code == "first" else clip * power(level - LEVELS)


def _level(code: str, magnitude: float, clip: float) -> int:
    """Return the nearest level, 0 to 127."""
    if magnitude == 0.0:
        return 0
    if code == "linear":
        level = magnitude / clip * LEVELS
    elif code == "first":
        level = 2 * math.log2(magnitude) + 64
    else:
        level = 8 * math.log2(magnitude / clip) + LEVELS if magnitude / clip > 0 else 0.0
    return round(min(max(level, 0.0), float(LEVELS)))

"""The file of a seed log: a header, then one record per step, each with a chained checksum.

A file starts with the line ``ANYORDER SEED LOG 1``. Records follow: one byte for the kind, the
length of the content as a variable-length integer, the content, and a CRC-32 of all bytes of the
file so far (4 bytes). A record that was changed, removed, moved or inserted breaks the checksums.

=====  ===========================================================================================
kind   content
=====  ===========================================================================================
``H``  JSON, compressed: fingerprint of the base weights, names of the trained parameters by group
``R``  JSON: method, version of the library, seed and distribution of the directions that follow
``S``  a step: its number minus that of the step before, evaluations since then, its moves
``E``  fingerprint of the weights at the end of the run
=====  ===========================================================================================

A move is an index and a scale (float64), or one scale per group where they differ. The index -1
stands for a multiplication of all matrices: weight decay.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from anyorder.errors import AnyOrderError
from anyorder.files import replaced
from anyorder.points.directions import Law

FORMAT = 1
_TITLE = b"ANYORDER SEED LOG "
MAGIC = _TITLE + f"{FORMAT}\n".encode()
#: The index that stands for weight decay.
DECAY = -1


class SeedLogError(AnyOrderError, ValueError):
    """A seed log that is damaged, does not fit, or cannot be written."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the log starts from.

    Args:
        base: fingerprint of the weights before the first step.
        groups: names of the trained parameters by parameter group.
    """

    base: bytes
    groups: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Run:
    """Where the directions of the following steps come from.

    Args:
        method: name of the method's class.
        version: version of the library that wrote the steps.
        seed: seed of the directions.
        law: distribution of the directions.
    """

    method: str
    version: str
    seed: int
    law: Law


@dataclass(frozen=True, slots=True)
class Move:
    """``weights += scale * z``, or ``matrices *= scale`` if ``index`` is -1.

    Args:
        index: index of the direction in its step, or -1.
        scales: one number per parameter group.
    """

    index: int
    scales: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Args:
        number: the number of the step that its directions are made from.
        values: evaluations of the loss since the step before.
        moves: the changes of the weights, in order.
    """

    number: int
    values: int
    moves: tuple[Move, ...]


@dataclass(frozen=True, slots=True)
class End:
    """The end of a run; ``digest`` is the fingerprint of its weights."""

    digest: bytes


Record = Run | Step


@dataclass(frozen=True, slots=True)
class SeedLog:
    """The content of a log.

    Args:
        header: what the log starts from.
        records: runs and steps in order; the first is a run.
        digest: fingerprint of the final weights; None if the run was not finished.
        size: bytes of the file up to the last step.
        checksum: checksum there, with which the next record is chained.
        dropped: bytes of an incomplete last record.
    """

    header: Header
    records: tuple[Record, ...] = ()
    digest: bytes | None = None
    size: int = field(default=0, compare=False)
    checksum: int = field(default=0, compare=False)
    dropped: int = field(default=0, compare=False)

    @property
    def steps(self) -> list[Step]:
        """The steps in order."""
        return [each for each in self.records if isinstance(each, Step)]


# Writing ------------------------------------------------------------------------------------------


class Encoder:
    """Turns records into bytes; keeps what the next record depends on.

    Args:
        groups: number of parameter groups.
        checksum: checksum of the bytes before.
        last: number of the step before in the same run.
    """

    def __init__(self, groups: int, checksum: int = 0, last: int = -1) -> None:
        self.groups, self.checksum, self.last = groups, checksum, last

    def record(self, each: Header | Record | End) -> bytes:
        """Return the bytes of the next record."""
        if isinstance(each, Header):
            text = json.dumps({"base": each.base.hex(), "groups": each.groups})
            return self._framed(b"H", zlib.compress(text.encode(), 9))
        if isinstance(each, Run):
            self.last = -1
            words = [each.method, each.version, each.seed, each.law]
            return self._framed(b"R", json.dumps(words).encode())
        if isinstance(each, End):
            return self._framed(b"E", each.digest)
        if each.number <= self.last:
            raise SeedLogError(f"step {each.number} follows step {self.last}; was a state loaded?")
        parts = [_integer(each.number - self.last), _integer(each.values)]
        for move in each.moves:
            alike = len(set(move.scales)) == 1
            scales = move.scales[:1] if alike else move.scales
            parts.append(_integer((move.index + 1) << 1 | (not alike)))
            parts.append(struct.pack(f"<{len(scales)}d", *scales))
        self.last = each.number
        return self._framed(b"S", b"".join(parts))

    def _framed(self, kind: bytes, content: bytes) -> bytes:
        framed = kind + _integer(len(content)) + content
        self.checksum = zlib.crc32(framed, self.checksum)
        return framed + struct.pack("<I", self.checksum)


def encoded(log: SeedLog) -> bytes:
    """Return the whole file of a log."""
    encoder = Encoder(len(log.header.groups), zlib.crc32(MAGIC))
    end = () if log.digest is None else (End(log.digest),)
    return MAGIC + b"".join(map(encoder.record, (log.header, *log.records, *end)))


def write(path: Path, log: SeedLog) -> None:
    """Write a log to a new file, atomically.

    Raises:
        SeedLogError: the file exists or cannot be written.
    """
    if path.exists():
        raise SeedLogError(f"{path} already exists; choose another file")
    try:
        with replaced(path) as scratch:
            scratch.write_bytes(encoded(log))
    except OSError as error:
        raise SeedLogError(f"cannot write {path}: {error.strerror or error}") from error


def _integer(value: int) -> bytes:
    """A non-negative integer, seven bits per byte, lowest first (LEB128)."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


# Reading ------------------------------------------------------------------------------------------


class _CutError(SeedLogError):
    """The content ends inside a record."""


def read(path: str | Path) -> SeedLog:
    """Read and check a log.

    A last record of which only a part was written, as when the process was killed, is dropped.

    Raises:
        SeedLogError: the file is missing, is not a seed log, or was changed.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SeedLogError(f"cannot read {path}: {error.strerror or error}") from error
    if not content.startswith(MAGIC):
        line = content.split(b"\n", 1)[0][:40].decode("ascii", "replace")
        if content.startswith(_TITLE):
            raise SeedLogError(
                f"{path}: expected format {FORMAT}, got {line!r}; install a newer version"
            )
        raise SeedLogError(f"{path} is not a seed log; expected it to begin with {MAGIC!r}")
    frames = _Frames(content, path)
    header, records, digest = None, list[Record](), None
    size, checksum = frames.place, frames.checksum
    reader = _Reader(path)
    for kind, body in frames:
        if digest is not None:
            raise SeedLogError(f"{path} holds records after its end; was it written twice?")
        try:
            if (kind == b"H") != (header is None):
                raise ValueError("expected one header at the beginning")
            if kind == b"H":
                header = reader.header(body)
            elif kind == b"E":
                digest = body
                continue
            else:
                records.append(reader.record(kind, body))
        except (ValueError, KeyError, IndexError, TypeError, struct.error, zlib.error) as error:
            raise SeedLogError(f"{path}: cannot read the record before byte {frames.place}: "
                               f"{error}") from error  # fmt: skip
        size, checksum = frames.place, frames.checksum
    if header is None:
        raise SeedLogError(f"{path}: the header is cut off; nothing can be replayed")
    return SeedLog(header, tuple(records), digest, size, checksum, frames.dropped)


class _Frames:
    """Iterates over kinds and contents of records, and checks their checksums."""

    def __init__(self, content: bytes, path: Path) -> None:
        self.content, self.path = content, path
        self.place, self.checksum, self.dropped = len(MAGIC), zlib.crc32(MAGIC), 0

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        while self.place < len(self.content):
            try:
                yield self._next()
            except _CutError:
                self.dropped = len(self.content) - self.place
                return

    def _next(self) -> tuple[bytes, bytes]:
        start = self.place
        length, inside = _read_integer(self.content, start + 1)
        stop = inside + length
        if stop + 4 > len(self.content):
            raise _CutError
        found = zlib.crc32(self.content[start:stop], self.checksum)
        if found != struct.unpack_from("<I", self.content, stop)[0]:
            raise SeedLogError(
                f"{self.path}: the checksum of the record at byte {start} is wrong; the file was "
                "changed, or records are missing or in another order. Bytes before it are intact"
            )
        self.place, self.checksum = stop + 4, found
        return self.content[start : start + 1], self.content[inside:stop]


def _read_integer(content: bytes, place: int) -> tuple[int, int]:
    """An integer and the place behind it."""
    value = shift = 0
    while True:
        if place >= len(content):
            raise _CutError
        value |= (content[place] & 0x7F) << shift
        shift, place = shift + 7, place + 1
        if content[place - 1] < 0x80:
            return value, place


class _Reader:
    """Turns contents into records; the counterpart of :class:`Encoder`."""

    def __init__(self, path: Path) -> None:
        self.path, self.groups, self.last = path, 0, -1

    def header(self, body: bytes) -> Header:
        found: Any = json.loads(zlib.decompress(body))
        self.groups = len(found["groups"])
        return Header(bytes.fromhex(found["base"]), tuple(map(tuple, found["groups"])))

    def record(self, kind: bytes, body: bytes) -> Record:
        if kind == b"R":
            self.last = -1
            run = Run(*json.loads(body))
            if run.law not in get_args(Law):
                raise ValueError(f"unknown distribution {run.law!r}; install a newer version")
            return run
        if kind != b"S":
            raise ValueError(f"unknown kind {kind!r}")
        ahead, place = _read_integer(body, 0)
        values, place = _read_integer(body, place)
        moves: list[Move] = []
        while place < len(body):
            tag, place = _read_integer(body, place)
            count = self.groups if tag & 1 else 1
            scales: Sequence[float] = struct.unpack_from(f"<{count}d", body, place)
            place += 8 * count
            moves.append(Move((tag >> 1) - 1, tuple(scales) * (self.groups // count)))
        self.last += ahead
        return Step(self.last, values, tuple(moves))

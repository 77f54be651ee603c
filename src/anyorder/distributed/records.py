"""Records: what all workers sent in one step. Their sequence is the whole run."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from anyorder.errors import AnyOrderError

#: Bytes of a hash of the weights.
HASH = 8
_MASK = struct.Struct("<H")
_FRAME = struct.Struct("<II")


class LogError(AnyOrderError, ValueError):
    """A log that is damaged, or of another run."""


def packed(messages: Mapping[int, bytes]) -> bytes:
    """Return the record of a step: a bit for each worker's number, then the messages in order.

    Args:
        messages: messages of equal length by the number of the worker.
    """
    bits = sum(1 << worker for worker in messages)
    mask = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
    return _MASK.pack(len(mask)) + mask + b"".join(messages[w] for w in sorted(messages))


def unpacked(record: bytes) -> dict[int, bytes]:
    """Return the messages of a record by the number of the worker, in increasing order.

    Raises:
        LogError: the record is damaged.
    """
    (length,) = _MASK.unpack_from(record) if len(record) >= _MASK.size else (0,)
    start = _MASK.size + length
    bits = int.from_bytes(record[_MASK.size : start], "little")
    workers = [number for number in range(bits.bit_length()) if bits >> number & 1]
    body = record[start:]
    size = len(body) // max(len(workers), 1)
    if len(record) < start or len(body) != size * len(workers):
        raise LogError(f"a record of {len(record)} bytes does not hold {len(workers)} messages")
    return {w: body[i * size : (i + 1) * size] for i, w in enumerate(workers)}


def split_hash(message: bytes, checked: bool) -> tuple[bytes, bytes]:
    """Return the scalars and the hash of a message; no hash if this step has no check."""
    return (message[:-HASH], message[-HASH:]) if checked else (message, b"")


def agreed(hashes: Mapping[int, bytes]) -> bytes:
    """Return the hash of most workers; of those that tie, that of the lowest number."""
    counts = Counter(hashes[worker] for worker in sorted(hashes))
    return max(counts, key=lambda each: counts[each])  # the first of equals


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return the settings as text that is equal for equal settings."""
    return json.dumps(settings, sort_keys=True)


def differing(ours: str, theirs: str) -> list[str]:
    """Return what differs between two texts of settings, as ``name: theirs, here ours``."""
    mine, others = json.loads(ours), json.loads(theirs)
    names = sorted({*mine, *others})
    return [
        f"{name}: {others.get(name)!r}, here {mine.get(name)!r}"
        for name in names
        if mine.get(name) != others.get(name)
    ]


class LogFile:
    """An append-only file of records: the settings in the first line, then frames.

    A frame is the length of the record, a checksum that continues that of the frame before it, and
    the record. Frames that are missing, exchanged or damaged are therefore found. A last frame that
    was cut off while it was written is removed.

    Args:
        path: the file. It is created with the first record.

    Raises:
        LogError: the file is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.settings = ""
        self.records: list[bytes] = []
        self._checksum = 0
        if self.path.exists():
            self._read(self.path.read_bytes())

    def _read(self, content: bytes) -> None:
        head, found, _ = content.partition(b"\n")
        try:
            self.settings = settings_text(json.loads(head))
        except ValueError:
            found = b""
        if not found:
            raise LogError(f"{self.path} is not a log of records; name another file")
        end = len(head) + 1
        for checksum, record in _frames(content, end):
            self._checksum = zlib.crc32(record, self._checksum)
            if checksum != self._checksum:
                raise LogError(
                    f"{self.path}: record {len(self.records)} is damaged, or records before it are "
                    "missing or were exchanged"
                )
            self.records.append(record)
            end += _FRAME.size + len(record)
        if end < len(content):
            os.truncate(self.path, end)

    def append(self, record: bytes, settings: str) -> None:
        """Write one record and hand it to the operating system."""
        frame = b"" if self.settings else settings.encode() + b"\n"
        self.settings = self.settings or settings
        self._checksum = zlib.crc32(record, self._checksum)
        with self.path.open("ab") as file:
            file.write(frame + _FRAME.pack(len(record), self._checksum) + record)
        self.records.append(record)


def _frames(content: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """Yield checksum and record of each whole frame."""
    while start + _FRAME.size <= len(content):
        length, checksum = _FRAME.unpack_from(content, start)
        start += _FRAME.size
        if start + length > len(content):
            return
        yield checksum, content[start : start + length]
        start += length

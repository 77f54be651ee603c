"""Text, numbers, images and sounds, as a page can show them."""

from __future__ import annotations

import io
import json
import struct
import wave
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from anyorder.errors import AnyOrderError

Kind = Literal["text", "numbers", "image", "sound"]

#: Kind and media type by the suffix of a file.
SUFFIXES: dict[str, tuple[Kind, str]] = {
    ".txt": ("text", "text/plain"),
    ".json": ("numbers", "application/json"),
    ".png": ("image", "image/png"),
    ".jpg": ("image", "image/jpeg"),
    ".jpeg": ("image", "image/jpeg"),
    ".gif": ("image", "image/gif"),
    ".webp": ("image", "image/webp"),
    ".svg": ("image", "image/svg+xml"),
    ".wav": ("sound", "audio/wav"),
    ".mp3": ("sound", "audio/mpeg"),
    ".ogg": ("sound", "audio/ogg"),
    ".flac": ("sound", "audio/flac"),
}
#: Suffixes by the first bytes of a file, and the bytes from the ninth on.
_MAGIC = (
    (b"\x89PNG", b"", ".png"),
    (b"\xff\xd8\xff", b"", ".jpg"),
    (b"GIF8", b"", ".gif"),
    (b"RIFF", b"WEBP", ".webp"),
    (b"RIFF", b"WAVE", ".wav"),
    (b"OggS", b"", ".ogg"),
    (b"fLaC", b"", ".flac"),
    (b"ID3", b"", ".mp3"),
    (b"<svg", b"", ".svg"),
    (b"<?xml", b"", ".svg"),
)


class MediaError(AnyOrderError, TypeError):
    """Something that the page cannot show."""


@dataclass(frozen=True)
class Media:
    """One candidate as the page shows it.

    Args:
        kind: selects the element of the page.
        text: the text.
        rows: pairs of a name and a number as text.
        data: the file of an image or a sound.
        mime: its media type.
    """

    kind: Kind
    text: str = ""
    rows: tuple[tuple[str, str], ...] = ()
    data: bytes = b""
    mime: str = ""


@dataclass(frozen=True)
class Sound:
    """Samples that ``render`` may return.

    Args:
        samples: numbers in [-1, 1], shape ``(n,)``, or ``(n, 2)`` for stereo; others are clipped.
        rate: samples per second.
    """

    samples: Any
    rate: int = 44_100


def media_of(value: Any) -> Media:
    """Convert what ``render`` returned.

    Args:
        value: a string (text); a number, a list or a mapping of numbers; the path or the bytes of a
            file in a format of :data:`SUFFIXES`; an array of shape ``(height, width)``,
            ``(height, width, 3)`` or ``(height, width, 4)``, uint8, or floats in [0, 1] (an image);
            a figure of Matplotlib, or an object with ``_repr_svg_`` or ``_repr_png_``, as images of
            Pillow have it; or a :class:`Sound`.

    Raises:
        MediaError: it is nothing of these.
    """
    if isinstance(value, Media):
        return value
    if isinstance(value, str):
        return Media("text", text=value)
    if isinstance(value, Path):
        return _of_file(value)
    if isinstance(value, bytes):
        return _of_bytes(value)
    if isinstance(value, Sound):
        return Media("sound", data=_wav(value), mime="audio/wav")
    drawn = _drawn(value)
    return _of_numbers(value) if drawn is None else _of_bytes(drawn)


def _of_file(path: Path) -> Media:
    if path.suffix.lower() not in SUFFIXES:
        raise MediaError(
            f"expected a file with one of the suffixes {', '.join(SUFFIXES)}, got {path.name}"
        )
    try:
        data = path.read_bytes()
        kind, mime = SUFFIXES[path.suffix.lower()]
        if kind == "text":
            return Media("text", text=data.decode())
        if kind == "numbers":
            return _of_numbers(json.loads(data))
        return Media(kind, data=data, mime=mime)
    except (OSError, ValueError) as error:
        raise MediaError(f"{path.name} cannot be read: {error}") from error


def _of_bytes(data: bytes) -> Media:
    begin = data[:64].lstrip() if data[:1] in b"\xef\t\n\r <" else data
    for first, later, suffix in _MAGIC:
        if begin.startswith(first) and data[8:].startswith(later):
            kind, mime = SUFFIXES[suffix]
            return Media(kind, data=data, mime=mime)
    raise MediaError(
        "expected the bytes of a PNG, JPEG, GIF, WebP or SVG image, or of a WAV, MP3, Ogg or FLAC "
        f"sound; these begin with {data[:8]!r}"
    )


def _drawn(value: Any) -> bytes | None:
    """The image of an object that can draw itself."""
    for name in ("_repr_svg_", "_repr_png_"):
        data = getattr(value, name, lambda: None)()
        if data:
            return data.encode() if isinstance(data, str) else bytes(data)
    if hasattr(value, "savefig"):
        file = io.BytesIO()
        value.savefig(file, format="png")
        return file.getvalue()
    return None


def _of_numbers(value: Any) -> Media:
    """Numbers with their names, or an array of pixels."""
    if isinstance(value, Mapping):
        pairs = [(str(name), part) for name, part in value.items()]  # pyright: ignore
        return Media("numbers", rows=tuple((name, _number(part)) for name, part in pairs))
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
        fits = array.dtype.kind in "uif" and array.size > 0
    except ValueError:
        fits, array = False, np.empty(0)
    if fits and array.ndim < 2:
        names = [str(i + 1) for i in range(array.size)]
        parts = zip(names, array.reshape(-1).tolist(), strict=True)
        return Media("numbers", rows=tuple((name, _number(part)) for name, part in parts))
    shape: tuple[int, ...] = array.shape
    if fits and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))):
        return Media("image", data=_png(array), mime="image/png")
    found = f"an array of shape {shape}" if fits else type(value).__name__
    raise MediaError(
        f"expected render to return a text, numbers, an image or a sound, got {found}; write for "
        "example a str, a dict of floats, a pathlib.Path, an array of shape (height, width, 3), or "
        "anyorder.judging.Sound(samples, rate)"
    )


def _number(value: Any) -> str:
    try:
        return f"{float(value):.6g}"
    except (TypeError, ValueError) as error:
        raise MediaError(f"expected numbers, got {value!r}") from error


def _png(pixels: np.ndarray[Any, Any]) -> bytes:
    """The array as a PNG file (RFC 2083): grey, RGB or RGBA in 8 bits."""
    if pixels.dtype.kind == "f":
        pixels = np.round(255 * np.clip(np.nan_to_num(pixels), 0, 1))
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    shape: tuple[int, ...] = pixels.shape
    colour = 0 if len(shape) == 2 else {3: 2, 4: 6}[shape[2]]
    header = struct.pack(">IIBBBBB", shape[1], shape[0], 8, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(name: bytes, data: bytes) -> bytes:
        size, check = (struct.pack(">I", n) for n in (len(data), zlib.crc32(name + data)))
        return size + name + data + check

    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _wav(sound: Sound) -> bytes:
    """The sound as a WAV file in 16 bits."""
    samples: Any = sound.samples
    if isinstance(samples, torch.Tensor):
        samples = samples.detach().cpu().numpy()
    found = np.asarray(samples, dtype=np.float64)
    shape: tuple[int, ...] = found.shape
    if found.ndim not in (1, 2) or not found.size or shape[1:] not in ((), (1,), (2,)):
        raise MediaError(f"expected samples of shape (n,) or (n, 2), got {found.shape}")
    whole = np.round(32_767 * np.clip(np.nan_to_num(found), -1, 1)).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1 if found.ndim == 1 else shape[1])
        writer.setsampwidth(2)
        writer.setframerate(sound.rate)
        writer.writeframes(whole.tobytes())
    return file.getvalue()

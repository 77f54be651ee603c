"""What render may return, and what the page gets of it."""

from __future__ import annotations

import io
import json
import wave
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anyorder.judging.media import SUFFIXES, Media, MediaError, Sound, media_of

SVG = '<svg xmlns="http://www.w3.org/2000/svg"/>'


def test_texts_and_numbers() -> None:
    assert media_of("two\nlines") == Media("text", text="two\nlines")
    assert media_of({"a": 1, "b": torch.tensor(0.25)}).rows == (("a", "1"), ("b", "0.25"))
    for several in ([1, 2.5], np.array([1, 2.5]), torch.tensor([1, 2.5])):
        assert media_of(several).rows == (("1", "1"), ("2", "2.5"))
    assert media_of(3).rows == (("1", "3"),)
    assert media_of(media_of(3)) == media_of(3)


def pixels_of(png: bytes, channels: int) -> np.ndarray[Any, Any]:
    """Read back a PNG of one IDAT without filters."""
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
    at = png.index(b"IDAT")
    size = int.from_bytes(png[at - 4 : at], "big")
    raw = np.frombuffer(zlib.decompress(png[at + 4 : at + 4 + size]), np.uint8)
    rows = raw.reshape(height, 1 + width * channels)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, channels)


@given(st.sampled_from([1, 3, 4]), st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_arrays_are_images(channels: int, height: int, width: int, floats: bool) -> None:
    shape = (height, width) if channels == 1 else (height, width, channels)
    wanted = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    given = wanted.reshape(shape) / 255 if floats else wanted.reshape(shape)
    found = media_of(given)
    assert (found.kind, found.mime) == ("image", "image/png")
    assert np.array_equal(pixels_of(found.data, channels), wanted)
    assert int.from_bytes(found.data[-8:-4], "big") == int.from_bytes(b"IEND", "big")


def test_colours_outside_the_range_are_clipped() -> None:
    found = media_of(np.array([[-1.0, 2.0, np.nan]]))
    assert pixels_of(found.data, 1).tolist() == [[[0], [255], [0]]]
    assert pixels_of(media_of(torch.tensor([[300, -5]])).data, 1).tolist() == [[[255], [0]]]


@pytest.mark.parametrize("channels", [1, 2])
def test_samples_are_a_sound(channels: int) -> None:
    samples = np.array([[0.0, 1.0], [-1.0, 0.5], [2.0, -2.0]])[:, :channels]
    found = media_of(Sound(torch.tensor(samples).squeeze(1), rate=8000))
    assert found.mime == "audio/wav"
    with wave.open(io.BytesIO(found.data)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (8000, channels, 3)
        heard = np.frombuffer(file.readframes(3), "<i2").reshape(3, channels)
    assert np.array_equal(heard, np.round(32_767 * np.clip(samples, -1, 1)))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_are_what_their_suffix_says(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"candidate{suffix.upper()}"
    file.write_bytes(b'{"x": 1}')
    found = media_of(file)
    assert found.kind == SUFFIXES[suffix][0]
    content = {"text": found.text == '{"x": 1}', "numbers": found.rows == (("x", "1"),)}
    assert content.get(found.kind, found.data == b'{"x": 1}')


@pytest.mark.parametrize(
    ("data", "mime"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF....WEBP", "image/webp"),
        (b"RIFF....WAVE", "audio/wav"),
        (b"ID3", "audio/mpeg"),
        (f"\n {SVG}".encode(), "image/svg+xml"),
        (SVG.encode(), "image/svg+xml"),
    ],
)
def test_bytes_are_what_they_begin_with(data: bytes, mime: str) -> None:
    assert media_of(data).mime == mime
    assert media_of(data).data == data


def test_objects_that_draw_themselves() -> None:
    class Drawing:
        def _repr_svg_(self) -> str:
            return SVG

    assert media_of(Drawing()).data == SVG.encode()
    figure = pytest.importorskip("matplotlib.figure").Figure((1, 1), dpi=20)
    assert media_of(figure).data.startswith(b"\x89PNG")
    image = pytest.importorskip("PIL.Image").new("RGB", (2, 2), "red")
    assert media_of(image).mime == "image/png"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (None, "got NoneType"),
        (np.zeros((2, 2, 2)), r"an array of shape \(2, 2, 2\)"),
        (np.zeros(0), "got ndarray"),
        ([[1], [1, 2]], "got list"),
        ({"a": "b"}, "expected numbers, got 'b'"),
        (b"PK\x03\x04", "begin with b'PK"),
        (Sound([[1, 2, 3]]), r"\(n,\) or \(n, 2\), got \(1, 3\)"),
        (Sound([]), r"got \(0,\)"),
    ],
)
def test_what_cannot_be_shown_is_told(wrong: Any, says: str) -> None:
    with pytest.raises(MediaError, match=says):
        media_of(wrong)


def test_files_that_cannot_be_shown_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"x": "y"})[:-1])
    for name, says in (("a.json", "a.json cannot be read"), ("none.png", "No such file"),
                       ("a.exe", "with one of the suffixes")):  # fmt: skip
        with pytest.raises(MediaError, match=says):
            media_of(tmp_path / name)

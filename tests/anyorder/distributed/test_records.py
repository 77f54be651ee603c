"""Records of steps and their file: every damage is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyorder.distributed.records import (
    LogError,
    LogFile,
    agreed,
    differing,
    packed,
    unpacked,
)

SETTINGS = '{"lr": 1}'


@given(st.integers(0, 5), st.sets(st.integers(0, 300), max_size=9))
def test_a_record_holds_the_messages_in_order(size: int, workers: set[int]) -> None:
    messages = {w: bytes((w + i) % 256 for i in range(size)) for w in sorted(workers, reverse=True)}
    found = unpacked(packed(messages))
    assert found == messages
    assert list(found) == sorted(workers)


def test_a_record_of_four_workers_takes_seven_bytes() -> None:
    assert len(packed(dict.fromkeys(range(4), b"x"))) == 2 + 1 + 4


@pytest.mark.parametrize("record", [b"", b"\x01", b"\x01\x00", b"\x01\x00\x03abc"])
def test_damaged_records_are_refused(record: bytes) -> None:
    with pytest.raises(LogError):
        unpacked(record)


def test_most_workers_are_right_and_of_equals_the_first() -> None:
    assert agreed({3: b"x", 1: b"y", 2: b"x"}) == b"x"
    assert agreed({2: b"x", 1: b"y"}) == b"y"


def test_differences_of_settings_are_named() -> None:
    assert differing('{"lr": 1, "eps": 2}', '{"lr": 3, "eps": 2}') == ["lr: 3, here 1"]


def filled(path: Path, count: int = 5) -> list[bytes]:
    file = LogFile(path)
    for step in range(count):
        file.append(packed({0: bytes([step])}), SETTINGS)
    return file.records


def test_a_log_is_read_back_and_continued(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    records = filled(path)
    again = LogFile(path)
    assert again.records == records and again.settings == SETTINGS
    again.append(b"\x00\x00", SETTINGS)
    assert LogFile(path).records == [*records, b"\x00\x00"]


def test_a_record_that_was_cut_off_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    records = filled(path)
    whole = path.read_bytes()
    for cut in (1, 5, 11):
        path.write_bytes(whole[:-cut])
        file = LogFile(path)
        assert file.records == records[:-1]
        file.append(records[-1], SETTINGS)
        assert path.read_bytes() == whole


def test_damaged_logs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    filled(path)
    whole = path.read_bytes()
    head = whole.index(b"\n") + 1
    frame = (len(whole) - head) // 5
    frames = [whole[head + i * frame : head + (i + 1) * frame] for i in range(5)]
    reordered = whole[:head] + b"".join(frames[i] for i in (0, 2, 1, 3, 4))
    missing = whole[:head] + b"".join(frames[i] for i in (0, 2, 3, 4))
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    for content in (reordered, missing, bytes(flipped), b"no log", b"no log\n"):
        path.write_bytes(content)
        with pytest.raises(LogError):
            LogFile(path)
        assert path.read_bytes() == content

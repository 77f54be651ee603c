"""The file of a seed log: what is written is read, and every kind of damage is found."""

from __future__ import annotations

import contextlib
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyorder.seed_log.format import (
    MAGIC,
    Encoder,
    End,
    Header,
    Move,
    Run,
    SeedLog,
    SeedLogError,
    Step,
    encoded,
    read,
    write,
)

HEADER = Header(b"\x07" * 32, (("w", "b"), ("v",)))
RUN = Run("MeZO", "0.1.0", 3, "normal")
STEPS = tuple(
    Step(number, 2, (Move(-1, (0.5, 0.25)), Move(0, (1e-3, 1e-3)), Move(300, (0.1, -0.2))))
    for number in (0, 1, 4, 1000)
)
LOG = SeedLog(HEADER, (RUN, *STEPS, Run("MeZO", "0.1.0", 4, "rademacher"), STEPS[0]), b"e" * 32)


def put(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "file"
    path.write_bytes(content)
    return path


def records(content: bytes) -> list[bytes]:
    """The bytes of each record after the header."""
    encoder = Encoder(2)
    sizes = [len(encoder.record(each)) for each in (HEADER, *LOG.records)]
    place, found = len(MAGIC) + sizes[0], list[bytes]()
    for size in sizes[1:]:
        found.append(content[place : place + size])
        place += size
    return [*found, content[place:]]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "log", LOG)
    found = read(str(tmp_path / "log"))
    assert found == LOG
    assert found.steps == [*STEPS, STEPS[0]]
    assert found.dropped == 0
    with pytest.raises(SeedLogError, match="already exists; choose another file"):
        write(tmp_path / "log", LOG)


FLOATS = st.floats(allow_nan=False)
MOVES = st.builds(Move, st.integers(-1, 5000), st.tuples(FLOATS, FLOATS))


@given(st.lists(st.tuples(st.integers(1, 10**9), st.integers(0, 300), st.lists(MOVES)), max_size=5))
def test_every_scalar_keeps_its_bits(rows: list[tuple[int, int, list[Move]]]) -> None:
    steps, number = list[Step](), -1
    for ahead, values, moves in rows:
        number += ahead
        steps.append(Step(number, values, tuple(moves)))
    log = SeedLog(HEADER, (RUN, *steps))
    with tempfile.TemporaryDirectory() as folder:
        found = read(put(Path(folder), encoded(log)))
    assert repr(found.records) == repr(log.records)  # also the sign of zero


def test_a_step_takes_17_bytes() -> None:
    encoder = Encoder(1)
    sizes = [len(encoder.record(Step(n, 2, (Move(0, (0.1,)),)))) for n in range(1000)]
    assert set(sizes) == {17}


@pytest.mark.parametrize("place", range(len(MAGIC), len(encoded(LOG)), 7))
def test_a_changed_byte_is_found(tmp_path: Path, place: int) -> None:
    content = bytearray(encoded(LOG))
    content[place] ^= 0x10
    path = put(tmp_path, bytes(content))
    with contextlib.suppress(SeedLogError):
        # A length that is too large looks as if the rest was not written.
        found = read(path)
        assert found.dropped and found.digest is None


def test_missing_repeated_and_exchanged_records_are_found(tmp_path: Path) -> None:
    content = encoded(LOG)
    parts = records(content)
    head = content[: -sum(map(len, parts))]
    assert head + b"".join(parts) == content
    for damaged in (
        [parts[0], *parts[2:]],
        [*parts[:3], *parts[2:]],
        [parts[0], parts[2], parts[1], *parts[3:]],
    ):
        with pytest.raises(SeedLogError, match=r"checksum of the record at byte \d+ is wrong"):
            read(put(tmp_path, head + b"".join(damaged)))


@pytest.mark.parametrize("place", range(len(MAGIC) + 1, len(encoded(LOG)), 5))
def test_a_cut_file_has_no_end(tmp_path: Path, place: int) -> None:
    path = put(tmp_path, encoded(LOG)[:place])
    if place < len(encoded(SeedLog(HEADER))):
        with pytest.raises(SeedLogError, match="the header is cut off"):
            read(path)
        return
    found = read(path)
    assert found.digest is None
    assert found.records == LOG.records[: len(found.records)]
    assert found.size + found.dropped == place


def test_records_after_the_end_are_found(tmp_path: Path) -> None:
    encoder = Encoder(2, zlib.crc32(MAGIC))
    twice = MAGIC + b"".join(map(encoder.record, (HEADER, RUN, End(b"e" * 32), RUN)))
    with pytest.raises(SeedLogError, match="records after its end"):
        read(put(tmp_path, twice))


def test_other_files_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(SeedLogError, match="cannot read .*: No such file"):
        read(tmp_path / "missing")
    with pytest.raises(SeedLogError, match="is not a seed log"):
        read(put(tmp_path, b"PK\x03\x04 something"))
    with pytest.raises(SeedLogError, match="expected format 1, got 'ANYORDER SEED LOG 9'"):
        read(put(tmp_path, b"ANYORDER SEED LOG 9\n"))
    with pytest.raises(SeedLogError, match="the header is cut off"):
        read(put(tmp_path, MAGIC))


def test_a_distribution_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    log = SeedLog(HEADER, (Run("MeZO", "9.0", 0, "cauchy"),))  # type: ignore[arg-type]
    with pytest.raises(SeedLogError, match="unknown distribution 'cauchy'; install a newer"):
        read(put(tmp_path, encoded(log)))


def test_numbers_of_steps_increase() -> None:
    encoder = Encoder(1)
    encoder.record(Step(3, 2, ()))
    with pytest.raises(SeedLogError, match="step 3 follows step 3; was a state loaded"):
        encoder.record(Step(3, 2, ()))
    encoder.record(RUN)
    encoder.record(Step(0, 2, ()))

"""Exchanges: one worker, a communicator in place of a group, and what is refused."""

from __future__ import annotations

import copy
import pickle

import pytest

from anyorder.distributed.exchange import (
    Alone,
    Coordinated,
    CoordinatorError,
    Grouped,
    JoinError,
    refuse_differences,
)
from anyorder.distributed.records import unpacked


class Mirror:
    """A communicator whose other two processes say what they are told to say."""

    rank, size = 1, 3

    def __init__(self, *others: bytes) -> None:
        self.others = others

    def mean_(self, tensors: object) -> int:
        raise AssertionError("nothing is averaged")

    def exchange(self, message: bytes) -> list[bytes]:
        return [self.others[0], message, self.others[1]]


def test_one_worker_is_a_run_too() -> None:
    link = Alone()
    link.begin("{}", "")
    assert link.join(3) == 3 and link.missed(2) is None
    record, why = link.exchange(0, b"a12345678", checked=True)
    assert unpacked(record) == {0: b"a"} and not why
    assert unpacked(link.exchange(1, b"b", checked=False)[0]) == {0: b"b"}


def test_messages_of_a_communicator_are_joined_by_rank() -> None:
    record, why = Grouped(Mirror(b"a", b"c")).exchange(0, b"b", checked=False)
    assert unpacked(record) == {0: b"a", 1: b"b", 2: b"c"} and not why


@pytest.mark.parametrize(("own", "kept"), [(b"right", {0, 1}), (b"wrong", {0, 2})])
def test_workers_with_other_weights_are_left_out(own: bytes, kept: set[int]) -> None:
    good, bad = b"-" * 8, b"x" * 8
    mine, last = (good, bad) if own == b"right" else (bad, good)
    record, why = Grouped(Mirror(b"a" + good, b"c" + last)).exchange(0, b"b" + mine, checked=True)
    assert set(unpacked(record)) == kept
    assert why.startswith("weights") == (own == b"wrong")


def test_processes_with_other_settings_are_refused() -> None:
    Grouped(Mirror(b'{"lr": 1}\nab', b'{"lr": 1}\nab')).begin('{"lr": 1}', "ab")
    with pytest.raises(JoinError, match="lr: 1, here 2"):
        Grouped(Mirror(b'{"lr": 1}\nab', b'{"lr": 1}\nab')).begin('{"lr": 2}', "ab")
    with pytest.raises(JoinError, match="other weights"):
        Grouped(Mirror(b'{"lr": 1}\nab', b'{"lr": 1}\ncd')).begin('{"lr": 1}', "ab")


def test_unknown_first_weights_are_not_compared() -> None:
    refuse_differences("{}", "{}", "", "ab", "it")
    refuse_differences("{}", "{}", "ab", "", "it")


@pytest.mark.parametrize("address", ["", "host", "host:", ":1", "host:port"])
def test_addresses_are_checked(address: str) -> None:
    with pytest.raises(CoordinatorError, match="host:port"):
        Coordinated(address)


def test_a_copy_is_another_worker() -> None:
    link = Coordinated("somewhere:1")
    link.worker = 5
    for twin in (copy.deepcopy(link), pickle.loads(pickle.dumps(link))):
        assert twin.worker == -1 and twin.address == "somewhere:1"

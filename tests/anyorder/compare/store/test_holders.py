"""Who holds a run, and whether that process is still there."""

from __future__ import annotations

import os
import subprocess
import sys

from anyorder.compare.store.holders import is_dead, me


def test_a_process_number_used_again_is_not_the_holder() -> None:
    assert not is_dead(me())
    assert is_dead({**me(), "started": "1"})
    assert not is_dead({**me(), "place": "elsewhere", "pid": 2**22 + 1})


def test_a_process_that_has_ended_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    holder = {**me(), "pid": process.pid}
    holder["started"] = open_stat(process.pid)
    assert not is_dead(holder)
    process.communicate(b"\n")
    assert is_dead(holder)


def open_stat(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[19]


def test_this_process_is_alive() -> None:
    assert me()["pid"] == os.getpid()
    assert not is_dead(me())

"""Work done in a new process, which begins with all imports done where the system allows."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any
from unittest import mock

#: How processes begin: forked from one that has only imported, or from nothing.
START = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def processes() -> Any:
    """The ``multiprocessing`` context of new processes.

    Importing PyTorch takes seconds, so one process that has done nothing else is kept, and each
    new process is forked from it.
    """
    context = multiprocessing.get_context(START)
    if START == "forkserver":
        from multiprocessing import forkserver

        context.set_forkserver_preload(["anyorder.testing.contract"])
        # It finds modules where this process does, whoever told this one.
        with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
            forkserver.ensure_running()
    return context


def elsewhere(work: Callable[..., bytes], *given: Any) -> bytes:
    """What ``work(*given)`` returns in a process of its own, which knows only what it is given.

    Raises:
        AssertionError: the work failed; the message holds its traceback.
    """
    context = processes()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(theirs, work, given))
    process.start()
    theirs.close()
    try:
        done, said = ours.recv()
    except EOFError:
        done, said = False, b"it ended without a word"
    process.join()
    code = process.exitcode
    process.close()
    ours.close()
    assert done and code == 0, f"exit code {code}: {said.decode(errors='replace')}"
    return said


def _report(out: Connection, work: Callable[..., bytes], given: tuple[Any, ...]) -> None:
    try:
        answer = (True, work(*given))
    except BaseException:
        answer = (False, traceback.format_exc().encode())
    out.send(answer)

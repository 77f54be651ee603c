"""Runs functions in a new process, with all imports already done if the system allows it."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any
from unittest import mock

#: Start method of processes: forked from one that has only imported, or spawned.
START = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def processes() -> Any:
    """Return the ``multiprocessing`` context of new processes.

    Importing PyTorch takes seconds, so each new process is forked from a server process that has
    only done the imports.
    """
    context = multiprocessing.get_context(START)
    if START == "forkserver":
        from multiprocessing import forkserver

        context.set_forkserver_preload(["anyorder.testing.contract"])
        # It has the same module search path as this process.
        with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
            forkserver.ensure_running()
    return context


def elsewhere(work: Callable[..., bytes], *given: Any) -> bytes:
    """Return the result of ``work(*given)`` in a new process, which receives only its arguments.

    Raises:
        AssertionError: ``work`` failed; the message includes its traceback.
    """
    context = processes()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(theirs, work, given))
    process.start()
    theirs.close()
    try:
        done, said = ours.recv()
    except EOFError:
        done, said = False, b"the process ended without a message"
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

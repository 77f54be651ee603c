"""A pool of worker processes, started on demand and replaced when they die."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any, Literal

from anyorder.compare.run.group import ending
from anyorder.compare.run.worker import main
from anyorder.errors import AnyOrderError

#: Environment variables that libraries used by PyTorch read when they are loaded.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
#: Extra seconds before a time-out for starting a process and importing PyTorch.
STARTING = 600.0
#: At most this many seconds between two calls of ``wait`` count towards a time-out: if this process
#: was stopped or the machine suspended, the workers were too.
GAP = 5.0


class WorkerError(AnyOrderError, RuntimeError):
    """A worker process died, or a job in it raised.

    Args:
        text: the error message.
        kind: class name of the error if it is one of this library.
        trace: traceback of any other error.
    """

    def __init__(self, text: str, kind: str = "", trace: str = "") -> None:
        super().__init__(text)
        self.kind, self.trace = kind, trace


@dataclass(frozen=True)
class Event:
    """A message of a worker, or its death.

    Attributes:
        kind: ``point`` (progress), ``done``, ``error``, ``died`` or ``timeout``.
        tag: the tag passed to :meth:`Pool.submit`.
        content: the point, the result, the error, or a description of how the process ended.
    """

    kind: Literal["point", "done", "error", "died", "timeout"]
    tag: Any
    content: Any


@dataclass
class _Worker:
    process: Any
    pipe: Any
    tag: Any = None
    busy: bool = field(default=False)
    timeout: float | None = None
    deadline: float = math.inf


class Pool:
    """Up to ``size`` worker processes.

    Args:
        size: number of parallel jobs.
        threads: threads of each worker.
        log: file for the output of user code.
    """

    def __init__(self, size: int, threads: int, log: str) -> None:
        self.size, self.threads, self.log = size, threads, log
        self._workers: list[_Worker] = []
        self._context = multiprocessing.get_context("spawn")
        self._watched, self._looked = 0.0, time.monotonic()

    @property
    def idle(self) -> int:
        """Number of jobs that can be submitted now."""
        return self.size - sum(worker.busy for worker in self._workers)

    def submit(self, job: str, subject: Any, tag: Any, timeout: float | None = None) -> None:
        """Send a job to an idle worker.

        Args:
            job: name of the job.
            subject: its argument.
            tag: tag of its events.
            timeout: wall-clock seconds after which the process is killed, from the start of the
                job; None: no limit.
        """
        worker = next((w for w in self._workers if not w.busy), None) or self._start()
        worker.tag, worker.busy, worker.timeout = tag, True, timeout
        worker.deadline = math.inf if timeout is None else self._watched + STARTING + timeout
        # The death of an idle worker is noticed when its sentinel is read.
        with contextlib.suppress(OSError):
            worker.pipe.send((job, subject))

    def wait(self, timeout: float) -> list[Event]:
        """Return the events of up to ``timeout`` seconds, in order."""
        sources = {worker.pipe: worker for worker in self._workers}
        sources |= {worker.process.sentinel: worker for worker in self._workers}
        if not sources:
            time.sleep(timeout)  # no workers, no events
        ready = connection.wait(list(sources), timeout)
        events: list[Event] = []
        # Pipes first: also read the last messages of dead workers.
        for worker in [w for w in self._workers if w.pipe in ready]:
            events += self._read(worker)
        for worker in [w for w in self._workers if w.process.sentinel in ready]:
            events += self._read(worker)
            events += self._bury(worker)
        return events + self._end_late()

    def ask(
        self,
        job: str,
        subject: Any,
        check: Callable[[], None] = lambda: None,
        timeout: float | None = None,
    ) -> Any:
        """Run a single job and return its result.

        ``check`` is called repeatedly while waiting, and can raise to stop waiting.

        Raises:
            WorkerError: the process died, took longer than ``timeout``, or the job failed.
        """
        tag = object()
        self.submit(job, subject, tag, timeout)
        while True:
            check()
            for event in self.wait(0.2):
                if event.tag is not tag or event.kind == "point":
                    continue
                if event.kind == "done":
                    return event.content
                if event.kind in ("died", "timeout"):
                    raise WorkerError(f"the process that did the job {job!r} {event.content}")
                error = event.content
                raise WorkerError(error["text"], error["kind"], error["traceback"])

    def close(self) -> None:
        """Terminate all workers, including busy ones."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()

    def __enter__(self) -> Pool:
        """Return the pool."""
        return self

    def __exit__(self, *_: object) -> None:
        """Terminate all workers."""
        self.close()

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        # Not a daemon: daemons cannot have child processes, which data loaders need.
        process = self._context.Process(target=main, args=(theirs, self.threads, self.log))
        with _environment(self.threads), _interrupts_held_back():
            process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _read(self, worker: _Worker) -> list[Event]:
        events: list[Event] = []
        with contextlib.suppress(EOFError, OSError):
            while worker.pipe.poll():
                kind, content = worker.pipe.recv()
                if kind == "began":
                    if worker.timeout is not None:
                        worker.deadline = self._watched + worker.timeout
                    continue
                events.append(Event(kind, worker.tag, content))
                if kind != "point":
                    worker.busy = False
        return events

    def _end_late(self) -> list[Event]:
        """Kill the processes of jobs that have timed out."""
        now = time.monotonic()
        self._watched += min(now - self._looked, GAP)
        self._looked = now
        events: list[Event] = []
        for worker in [w for w in self._workers if w.busy and self._watched > w.deadline]:
            worker.process.kill()
            self._bury(worker)
            text = f"was killed: it took longer than {worker.timeout:g} s"
            events.append(Event("timeout", worker.tag, text))
        return events

    def _bury(self, worker: _Worker) -> list[Event]:
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        if not worker.busy:
            return []
        return [Event("died", worker.tag, ending(worker.process.exitcode))]


@contextlib.contextmanager
def _environment(threads: int) -> Generator[None]:
    """Set environment variables for child processes inside the block."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _interrupts_held_back() -> Generator[None]:
    """Block Ctrl-C for processes started in the block, until they install a handler."""
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

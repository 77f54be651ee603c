"""Worker processes: started when needed, replaced when they die, stopped with the comparison."""

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

from anyorder.compare.run.worker import main
from anyorder.errors import AnyOrderError

#: Read by the libraries under PyTorch when they are loaded.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
#: A process may take so many seconds to start before a time-out counts.
STARTING = 600.0
#: Of the time between two looks at the workers at most so many seconds count as watched: if this
#: process was stopped or the machine asleep, the workers were too.
GAP = 5.0


class WorkerError(AnyOrderError, RuntimeError):
    """A worker process died, or a job in it raised.

    Args:
        text: what happened.
        kind: name of this library's error that was raised there, if it was one.
        trace: its traceback, if it was not.
    """

    def __init__(self, text: str, kind: str = "", trace: str = "") -> None:
        super().__init__(text)
        self.kind, self.trace = kind, trace


@dataclass(frozen=True)
class Event:
    """Something a worker said, or that it died.

    Attributes:
        kind: ``point`` (progress), ``done``, ``error``, ``died`` or ``timeout``.
        tag: what was given to :meth:`Pool.submit`.
        content: the point, the answer, the error, or in words how the process ended.
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
        size: jobs at a time.
        threads: threads of each worker.
        log: file that takes what users' code prints.
    """

    def __init__(self, size: int, threads: int, log: str) -> None:
        self.size, self.threads, self.log = size, threads, log
        self._workers: list[_Worker] = []
        self._context = multiprocessing.get_context("spawn")
        self._watched, self._looked = 0.0, time.monotonic()

    @property
    def idle(self) -> int:
        """Jobs that could be submitted now."""
        return self.size - sum(worker.busy for worker in self._workers)

    def submit(self, job: str, subject: Any, tag: Any, timeout: float | None = None) -> None:
        """Give a job to a free worker.

        Args:
            job: its name.
            subject: what the job is about.
            tag: comes back with everything the worker says.
            timeout: wall-clock seconds after which the process is ended, counted from when it
                begins with the job, while this process waits for it.
        """
        worker = next((w for w in self._workers if not w.busy), None) or self._start()
        worker.tag, worker.busy, worker.timeout = tag, True, timeout
        worker.deadline = math.inf if timeout is None else self._watched + STARTING + timeout
        # A worker that died while idle is noticed when its sentinel is read.
        with contextlib.suppress(OSError):
            worker.pipe.send((job, subject))

    def wait(self, timeout: float) -> list[Event]:
        """Whatever happened within ``timeout`` seconds, in order."""
        sources = {worker.pipe: worker for worker in self._workers}
        sources |= {worker.process.sentinel: worker for worker in self._workers}
        if not sources:
            time.sleep(timeout)  # nobody there to say anything
        ready = connection.wait(list(sources), timeout)
        events: list[Event] = []
        # Pipes first: the last words of a worker that has died count.
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
        """Run one job while nothing else is going on, and return its answer.

        ``check`` is called all the while, and may raise to end the wait.

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
        """End all workers, whatever they are doing."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()

    def __enter__(self) -> Pool:
        """The pool."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all workers."""
        self.close()

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        # Not a daemon: daemons may have no children, and data loaders want some.
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
        """End the processes of jobs that take too long."""
        now = time.monotonic()
        self._watched += min(now - self._looked, GAP)
        self._looked = now
        events: list[Event] = []
        for worker in [w for w in self._workers if w.busy and self._watched > w.deadline]:
            worker.process.kill()
            self._bury(worker)
            text = f"was ended: it took longer than {worker.timeout:g} s"
            events.append(Event("timeout", worker.tag, text))
        return events

    def _bury(self, worker: _Worker) -> list[Event]:
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        if not worker.busy:
            return []
        return [Event("died", worker.tag, _ending(worker.process.exitcode))]


def _ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended by itself with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"


@contextlib.contextmanager
def _environment(threads: int) -> Generator[None]:
    """Variables a child inherits and the parent does not keep."""
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
    """Start a process in which Ctrl-C is blocked until it can say what to do about it."""
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

"""The main loop of a worker process, which receives jobs and sends progress and results.

User code runs only here, so that a crash, a memory leak or ``os._exit`` ends one run and not the
comparison.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from functools import lru_cache, partial
from multiprocessing import connection, parent_process
from typing import TYPE_CHECKING, Any

from anyorder.compare.run.group import Group, join, succeeded
from anyorder.errors import AnyOrderError

if TYPE_CHECKING:  # imported after the output is redirected
    from anyorder.compare.plan.entrants import Entrant
    from anyorder.compare.plan.items import Task
    from anyorder.compare.plan.settings import Settings
    from anyorder.compare.run.estimate import Pace
    from anyorder.compare.run.records import Described, Pilot, RunRecord
    from anyorder.problems import Problem

Send = Callable[[str, Any], None]


def main(pipe: Any, threads: int, log: str) -> None:
    """Process jobs until the pipe closes.

    Incoming messages are ``(job, subject)``, where the subject is the settings, or the task of a
    run. Outgoing messages are ``("began", None)``, ``("point", ...)`` during a run and then
    ``("done", result)`` or ``("error", {...})``.

    Args:
        pipe: one end of a ``multiprocessing.Pipe``.
        threads: threads for PyTorch.
        log: file for the output of user code.
    """
    _settle(log, threads)
    group = Group(_help, threads, log, forget=_warmed.clear)

    def send(kind: str, content: Any) -> None:
        pipe.send((kind, content))

    while True:
        try:
            name, subject = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            send("began", None)
            job = partial(JOBS[name], subject, send)
            send("done", group.do(name, subject, job))
        except AnyOrderError as error:
            send("error", {"kind": type(error).__name__, "text": str(error), "traceback": ""})
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            text = f"{type(error).__name__}: {error}"
            send("error", {"kind": "", "text": text, "traceback": trace})


def _help(pipe: Any, threads: int, log: str, rank: int, size: int, port: int) -> None:
    """Execute the jobs of a worker as another rank of its group, until the pipe closes."""
    _settle(log, threads)
    join(rank, size, port)
    with contextlib.suppress(EOFError, OSError):
        while True:
            name, subject = pipe.recv()
            try:
                result = JOBS[name](subject, lambda kind, content: None)
            except Exception as error:
                traceback.print_exc()
                pipe.send(f"{type(error).__name__}: {error}")
                break
            if not succeeded(result):
                sys.stderr.write(f"rank {rank}: {result.error} {result.traceback or ''}\n")
                pipe.send(str(result.error))
                break
            pipe.send(None)
    sys.stderr.flush()
    os._exit(1)  # at once: other ranks may wait for this one


def _settle(log: str, threads: int) -> None:
    """Prepare a process.

    Ignore Ctrl-C (the parent handles it), redirect output to the log, end with the parent, and
    load PyTorch.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    with contextlib.suppress(OSError):  # an unwritable log must not end the run
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    import torch

    torch.set_num_threads(threads)


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


# --- Jobs --------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _problem(spec: str, options: str) -> Problem:
    from anyorder.problems import load

    return load(spec, **json.loads(options))


def problem_of(settings: Settings) -> Problem:
    """The problem of the comparison; loaded once per process."""
    return _problem(settings.problem, json.dumps(settings.options, sort_keys=True))


def _describe(settings: Settings, send: Send) -> Described:
    """The attributes of the problem."""
    from anyorder.compare.run.records import Described

    problem, parameters = problem_of(settings), 0
    with contextlib.suppress(Exception, SystemExit):  # the pilot reports it
        trainable = (p for p in problem.build(0).parameters() if p.requires_grad)
        parameters = sum(p.numel() for p in trainable)
    return Described(
        name=str(problem.name),
        spec=settings.problem,
        options=settings.options,
        metric=problem.metric,
        goal=problem.goal,
        target=problem.target,
        optimum=problem.optimum,
        schedule=problem.schedule,
        parameters=parameters,
        judged=problem.judged,
    )


def _pilot(settings: Settings, send: Send) -> Pilot:
    from anyorder.compare.run.pilot import pilot

    return pilot(problem_of(settings), settings.device, settings.autocast)


def _pace(task: Task, send: Send) -> Pace:
    """Measure the speed of a method."""
    from anyorder.compare.plan.entrants import resolve
    from anyorder.compare.run.estimate import pace

    problem = problem_of(task.settings)
    entrant = resolve(task.method.spec, task.method.name, task.method.fixed)
    _warm(problem, entrant, task)
    return pace(problem, entrant, task)


def _run(task: Task, send: Send) -> RunRecord:
    from anyorder.compare.plan.entrants import resolve
    from anyorder.compare.run import runner
    from anyorder.compare.run.records import failed_run

    try:
        problem = problem_of(task.settings)
        entrant = resolve(task.method.spec, task.method.name, task.method.fixed)
    except AnyOrderError as error:
        return failed_run(task, str(error))
    warmup = _warm(problem, entrant, task)
    record = runner.run(problem, entrant, task, lambda point: send("point", point))
    record.warmup_seconds = warmup
    return record


_warmed: dict[Any, float] = {}


def _warm(problem: Problem, entrant: Entrant, task: Task) -> float:
    """Warm up for the problem, then for the method; return the seconds of the latter."""
    from anyorder.compare.plan.entrants import resolve
    from anyorder.compare.run import runner

    where = (id(problem), task.settings.device, task.settings.autocast)
    if where not in _warmed:
        # The first backward pass of a process is slow for any method: do not charge it.
        _warmed[where] = runner.warm_up(problem, resolve("sgd"), task, {})
    key = (*where, entrant.name)
    if key not in _warmed:
        _warmed[key] = runner.warm_up(problem, entrant, task, task.config)
        # Exclude imported objects from garbage collection: scanning them before every run can
        # take longer than the run.
        gc.collect()
        gc.freeze()
    return _warmed[key]


JOBS: dict[str, Callable[[Any, Send], Any]] = {
    "describe": _describe,
    "pilot": _pilot,
    "pace": _pace,
    "run": _run,
}

"""What happens inside a worker process: it is sent jobs, and sends back progress and answers.

Users' code runs here and only here, so that a crash, a leak or a call of ``os._exit`` costs one
run and not the comparison.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from functools import lru_cache
from multiprocessing import connection, parent_process
from typing import TYPE_CHECKING, Any, cast

from anyorder.errors import AnyOrderError

if TYPE_CHECKING:
    from anyorder.problems import Problem

Send = Callable[[str, Any], None]


def main(pipe: Any, threads: int, log: str) -> None:
    """Answer jobs until the pipe closes.

    Messages in are ``(job, arguments)``. Messages out are ``("point", ...)`` while a run goes on
    and then ``("done", answer)`` or ``("error", {...})``.

    Args:
        pipe: one end of a ``multiprocessing.Pipe``.
        threads: threads for PyTorch.
        log: file that takes whatever users' code prints.
    """
    _settle(log)
    import torch

    torch.set_num_threads(threads)

    def send(kind: str, content: Any) -> None:
        pipe.send((kind, content))

    while True:
        try:
            name, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            send("done", JOBS[name](arguments, send))
        except AnyOrderError as error:
            send("error", {"kind": type(error).__name__, "text": str(error), "traceback": ""})
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            text = f"{type(error).__name__}: {error}"
            send("error", {"kind": "", "text": text, "traceback": trace})


def _settle(log: str) -> None:
    """Be a quiet child: ignore Ctrl-C (the parent decides), log output, end with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    with contextlib.suppress(OSError):  # an unwritable log must not cost the run
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


# --- Jobs --------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _problem(spec: str, options: tuple[tuple[str, Any], ...]) -> Problem:
    from anyorder.problems import load

    return load(spec, **dict(options))


def problem_of(message: Mapping[str, Any]) -> Problem:
    """The problem a message names; loaded once per process."""
    return _problem(message["problem"], tuple(sorted(message["options"].items())))


def _describe(message: Mapping[str, Any], send: Send) -> dict[str, Any]:
    """What a problem says of itself."""
    problem = problem_of(message)
    return {
        "name": str(problem.name),
        "spec": message["problem"],
        "options": dict(message["options"]),
        "metric": problem.metric,
        "goal": problem.goal,
        "target": problem.target,
        "optimum": problem.optimum,
        "schedule": problem.schedule,
    }


def _probe(message: Mapping[str, Any], send: Send) -> dict[str, Any]:
    from anyorder.compare.run.pilot import probe

    return probe(problem_of(message), message["device"], message["autocast"])


def _run(message: Mapping[str, Any], send: Send) -> dict[str, Any]:
    from anyorder.compare.plan.entrants import resolve
    from anyorder.compare.run import runner

    try:
        problem = problem_of(message)
        method = message["method"]
        entrant = resolve(method["spec"], method["name"], method["fixed"])
    except AnyOrderError as error:
        return failure(message["task"], "error", str(error))
    task = runner.task_from(message["task"], entrant)
    warmup = _warm(method["name"], problem, task)
    record = runner.run(problem, task, lambda point: send("point", point))
    return {**record, "warmup_seconds": warmup}


def failure(task: Mapping[str, Any], reason: str, error: str) -> dict[str, Any]:
    """The record of a run that never got anywhere."""
    return {
        "seed": task["seed"],
        "config": dict(task["config"]),
        "start_hash": "",
        "status": "failed",
        "stop_reason": reason,
        "error": error,
        "traceback": None,
        "curve": [],
        "final": {"loss": None, "metric": None},
        "test": None,
        "peak_bytes": 0,
        "base_bytes": 0,
        "state_bytes": 0,
        "warmup_seconds": 0.0,
        "evaluation_seconds": 0.0,
    }


_warmed: dict[Any, float] = {}


def _warm(method: str, problem: Problem, task: Any) -> float:
    """Warm this process up, first for the problem, then for the method; seconds of the latter."""
    from anyorder.compare.plan.entrants import resolve
    from anyorder.compare.run import runner

    where = (id(problem), task.device, task.autocast)
    if where not in _warmed:
        # What the first backward of a process costs is no method's fault.
        _warmed[where] = runner.warm_up(
            problem, dataclasses.replace(task, entrant=resolve("sgd"), config={})
        )
    key = (*where, method)
    if key not in _warmed:
        _warmed[key] = runner.warm_up(problem, task)
        # All that was imported stays; looking through it again before every run takes longer
        # than some runs do.
        gc.collect()
        gc.freeze()
    return _warmed[key]


JOBS = cast(
    "dict[str, Callable[[Mapping[str, Any], Send], dict[str, Any]]]",
    {"describe": _describe, "probe": _probe, "run": _run},
)

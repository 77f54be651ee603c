"""Runs of several processes: a worker and its helpers form one group of ``torch.distributed``.

With ``processes`` in the settings, a worker is rank 0 and starts the other ranks itself. All ranks
execute the same jobs, so a problem can wrap its model with ``DistributedDataParallel`` and draw its
part of a batch by its rank. Rank 0 answers. If a job does not succeed in one rank, the others may
wait for it in a collective operation: so the helpers are ended, and the next job starts new ones.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing import connection
from typing import Any, cast

from anyorder.errors import AnyOrderError

#: All processes of a run are on one machine.
HERE = "127.0.0.1"
#: Seconds to wait for the answer of another process after a failure of the own one.
NEWS = 2.0


class GroupError(AnyOrderError, RuntimeError):
    """A run of several processes cannot be executed."""


class Group:
    """The helpers of a worker, started when a job needs them.

    Args:
        helper: what they execute: ``helper(pipe, threads, log, rank, size, port)`` joins, and then
            executes each job it receives and answers with None; if a job does not succeed, it
            answers with its error and ends.
        threads: threads of each process.
        log: file for the output of user code.
        forget: called before helpers start. They know nothing, and all ranks must do the same:
            it forgets what this process need not do again.
    """

    def __init__(
        self, helper: Callable[..., None], threads: int, log: str, forget: Callable[[], None]
    ) -> None:
        self._helper, self._threads, self._log, self._forget = helper, threads, log, forget
        self._helpers: list[tuple[Any, Any]] = []

    def do(self, name: str, subject: Any, job: Callable[[], Any]) -> Any:
        """Execute a job in all processes and return the result of this one.

        Args:
            name: name of the job, for the helpers.
            subject: the settings, or the task of a run.
            job: the job, for this process.

        Raises:
            GroupError: another process failed, or the settings need a single process.
        """
        settings = getattr(subject, "settings", subject)
        size = settings.processes
        if size == 1:
            return job()
        _refuse(settings)
        if len(self._helpers) != size - 1:
            self._start(size)
        finished = False
        try:
            for _, pipe in self._helpers:
                pipe.send((name, subject))
            try:
                result = job()
            except Exception as error:
                self._blame(str(error))
                raise
            if succeeded(result):
                self._wait()
                finished = True
            elif result.status == "failed":
                self._blame(str(result.error))
            return result
        finally:
            if not finished:
                self._stop()

    def _wait(self) -> None:
        """Wait for the others; raise the error of the first that failed."""
        for rank, (_, pipe) in enumerate(self._helpers, start=1):
            connection.wait([pipe])
            if (said := self._said(rank)) is not None:
                raise GroupError(said)

    def _blame(self, own: str) -> None:
        """If another process failed in another way, raise its error: the own one follows from it.

        It answers before it ends, and only its end can be noticed by the others.
        """
        connection.wait([pipe for _, pipe in self._helpers], NEWS)
        for rank, (_, pipe) in enumerate(self._helpers, start=1):
            said = self._said(rank) if pipe.poll() else None
            if said is not None and own not in said:
                raise GroupError(f"{said}; rank 0: {own}")

    def _said(self, rank: int) -> str | None:
        """The error that a process answered with, or how it ended; None if it succeeded."""
        process, pipe = self._helpers[rank - 1]
        try:
            said = pipe.recv()
        except (EOFError, OSError):
            process.join()
            said = f"the process {ending(process.exitcode)}; its output is in {self._log}"
        return said and f"rank {rank} of {len(self._helpers) + 1}: {said}"

    def _start(self, size: int) -> None:
        import torch.distributed as dist

        self._forget()
        context = multiprocessing.get_context("spawn")
        store = cast(Any, dist).TCPStore(HERE, 0, size, is_master=True, wait_for_workers=False)
        for rank in range(1, size):
            ours, theirs = context.Pipe()
            place = (theirs, self._threads, self._log, rank, size, store.port)
            process = context.Process(target=self._helper, args=place)
            process.start()
            theirs.close()
            self._helpers.append((process, ours))
        _join(store, 0, size)

    def _stop(self) -> None:
        import torch.distributed as dist

        for process, _ in self._helpers:
            process.kill()
        for process, pipe in self._helpers:
            process.join()
            pipe.close()
        self._helpers.clear()
        with contextlib.suppress(Exception):  # its other ends are gone
            dist.destroy_process_group()


def ending(code: int) -> str:
    """Describe how a process ended, from its exit code."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


def succeeded(result: Any) -> bool:
    """Whether a job did what it should; runs can fail or diverge without an exception."""
    return getattr(result, "status", "done") == "done"


def join(rank: int, size: int, port: int) -> None:
    """Join the group of a worker whose store listens at a port."""
    import torch.distributed as dist

    _join(cast(Any, dist).TCPStore(HERE, port, size, is_master=False), rank, size)


def _join(store: Any, rank: int, size: int) -> None:
    """Join as ``torchrun`` would: with its environment variables."""
    import torch.distributed as dist

    values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    os.environ.update({name: str(value) for name, value in values.items()})
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)


def agreed(choice: bool) -> bool:
    """The choice of rank 0, which depends on time, in all ranks; alone, the own one."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return choice
    found = [choice]
    dist.broadcast_object_list(found, src=0)
    return found[0]


def _refuse(settings: Any) -> None:
    from anyorder.compare.plan.limits import Limits, prices

    if Limits.read(settings.budget, prices()).seconds is not None:
        raise GroupError(
            f"budget: {settings.budget} would end at different steps in {settings.processes} "
            "processes; use a budget in grads, forwards or steps"
        )
    if settings.device != "cpu":
        raise GroupError(
            f"device: runs of {settings.processes} processes are possible on the CPU only, got "
            f"{settings.device}"
        )

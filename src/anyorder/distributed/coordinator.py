"""The coordinator: workers join, leave and fail, and the others go on.

It holds a ``torch.distributed.TCPStore`` and decides, for every step, whose messages count. What it
publishes is the record that all workers apply, so no two workers can disagree about a step. It
holds no weights. Keys of the store:

=============  ==================================================================
``base``       settings of the run and hash of its first weights
``n``          number of workers that ever joined; a worker's number is never reused
``h<w>``       worker w wants to join;  ``a<w>``: the first step it takes part in
``j``          somebody wants to join
``<t>/<w>``    message of worker w in step t; empty: the worker leaves
``r<t>``       record of step t
``x<w>``       why worker w was left out
``e``          why the coordinator ended; what workers still wait for is set to nothing
=============  ==================================================================
"""

from __future__ import annotations

import json
import os
import struct
import threading
from datetime import timedelta
from typing import Any, Self

import torch

from anyorder.distributed.exchange import PORT, STEP, opened, weights_differ
from anyorder.distributed.quantiser import SIZES
from anyorder.distributed.records import (
    HASH,
    LogError,
    LogFile,
    agreed,
    packed,
    split_hash,
)
from anyorder.hyper import HyperError

_STEP = struct.Struct("<q")


class Coordinator:
    """Decides whose messages count in each step of :class:`OneByteMeZO`. Start one per run.

    It runs in a thread of the process that creates it, which may be a worker or one of its own. If
    this process ends, no worker can take a further step: run it where it is least likely to fail.
    With a ``log`` it can be started again, and the workers go on.

    There is no authentication and no encryption: whoever reaches the port can join, read the log
    and disturb the run. Use it in a private network or through a tunnel. What a worker can do to
    the weights is bounded: one scalar is at most the clip of the step, and messages of a wrong
    length are refused.

    Args:
        port: TCP port; 0 takes a free one.
        workers: the run begins when so many workers have joined.
        patience: seconds that a step may take. Workers whose message is not there by then are left
            out of it, unless no message is. One that was late joins again by itself; one that was
            killed costs this time once.
        log: file of the log. An existing one is continued.

    Raises:
        LogError: the log is damaged.
        HyperError: an argument is out of range.

    Example:
        >>> import torch
        >>> from anyorder.distributed import Coordinator, OneByteMeZO
        >>> x = torch.nn.Parameter(torch.ones(3))
        >>> with Coordinator(port=0) as coordinator:
        ...     optimizer = OneByteMeZO([x], lr=0.05, coordinator=coordinator.address)
        ...     for _ in range(3):
        ...         loss = optimizer.step(lambda: (x ** 2).sum())
        >>> optimizer.calls.values, optimizer.calls.bytes_sent
        (6, 11)
    """

    def __init__(
        self,
        port: int = PORT,
        *,
        workers: int = 1,
        patience: float = 60.0,
        log: str | os.PathLike[str] | None = None,
    ) -> None:
        for name, value, least in (("port", port, 0), ("workers", workers, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise HyperError(f"{name}: expected a whole number >= {least}, got {value!r}")
        if not patience > 0:
            raise HyperError(f"patience: expected seconds > 0, got {patience!r}")
        self.workers, self.patience = workers, patience
        self._log = None if log is None else LogFile(log)
        self._step, self._roster, self._unseen = 0, list[int](), set[int]()
        self._known = 0
        self._settings, self._head = dict[str, Any](), dict[str, str]()
        self._closed = threading.Event()
        self._awaited: list[str] = []
        self._server = opened("localhost", port, serve=True)
        self.port: int = self._server.port
        self._store = opened("localhost", self.port)
        self._publish_log()
        self._thread = threading.Thread(target=self._run, name="coordinator", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """``host:port`` for workers on this machine; elsewhere use the machine's own name."""
        return f"localhost:{self.port}"

    @property
    def steps(self) -> int:
        """The number of records."""
        return self._step

    def close(self) -> None:
        """End the run. Workers that wait raise :class:`CoordinatorError`."""
        self._closed.set()
        for key in self._awaited:  # wake the thread up
            self._server.set(key, b"")
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # Inside --------------------------------------------------------------------------------

    def _publish_log(self) -> None:
        if self._log is None or not self._log.settings:
            return
        saved = json.loads(self._log.settings)
        try:
            self._store.set("base", f"{saved['settings']}\n{saved['base']}")
        except KeyError as missing:
            raise LogError(f"{self._log.path}: its first line lacks {missing}") from None
        for record in self._log.records:
            self._store.set(f"r{self._step}", record)
            self._step += 1

    def _run(self) -> None:
        why = "it was closed"
        try:
            self._wait_for(self.workers)
            while not self._closed.is_set():
                self._take_step()
                self._wait_for(1)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._store.set("e", why)
            self._known = self._store.add("n", 0)
            for key in (f"r{self._step}", *(f"a{worker}" for worker in range(self._known))):
                if not self._store.check([key]):
                    self._store.set(key, b"")

    def _wait_for(self, count: int) -> None:
        """Let workers join, until there are enough of them."""
        self._admit()
        while len(self._roster) < count and not self._closed.is_set():
            if self._arrives(["j"], STEP):
                self._store.delete_key("j")
            self._admit()

    def _admit(self) -> None:
        count = self._store.add("n", 0)
        self._unseen.update(range(self._known, count))
        self._known = count
        for worker in sorted(self._unseen):
            if self._store.check([f"h{worker}"]):
                self._unseen.remove(worker)
                self._roster.append(worker)
                self._store.set(f"a{worker}", _STEP.pack(self._step))

    def _arrives(self, keys: list[str], patience: timedelta) -> bool:
        self._awaited = keys
        if self._closed.is_set():
            return False
        try:
            self._store.wait(keys, patience)
        except torch.distributed.DistStoreError:
            return False
        return True

    def _take_step(self) -> None:
        messages = self._collected()
        if self._closed.is_set() or not messages:
            return
        if not self._settings:
            settings, _, base = self._store.get("base").decode().partition("\n")
            self._settings, self._head = json.loads(settings), {"settings": settings, "base": base}
        record = packed(self._counted(messages))
        if self._log is not None:
            self._log.append(record, json.dumps(self._head))
        step, self._step = self._step, self._step + 1  # counted before anybody sees the record
        self._store.set(f"r{step}", record)
        for worker in messages:
            self._store.delete_key(f"{step}/{worker}")

    def _collected(self) -> dict[int, bytes]:
        """Return the messages of this step; workers that are late or leave are struck off."""
        keys = {worker: f"{self._step}/{worker}" for worker in self._roster}
        patience = timedelta(seconds=self.patience)
        while not self._arrives(list(keys.values()), patience) and not self._closed.is_set():
            if any(self._store.check([key]) for key in keys.values()):
                break
        there = {worker: key for worker, key in keys.items() if self._store.check([key])}
        found = dict(zip(there, self._store.multi_get(list(there.values())), strict=True))
        if not self._closed.is_set():
            for worker in keys.keys() - found.keys():
                self._strike(worker, f"late: no message within {self.patience:g} s")
        for worker in [w for w, message in found.items() if not message]:
            self._strike(worker, "it left")
            del found[worker]
        return found

    def _counted(self, messages: dict[int, bytes]) -> dict[int, bytes]:
        """Return the scalars of workers with sound messages and the weights of most workers."""
        settings = self._settings
        checked = self._step % settings["check_every"] == 0
        size = settings["directions"] * SIZES[settings["code"]] + HASH * checked
        for worker in [w for w, message in messages.items() if len(message) != size]:
            self._strike(worker, f"message: {len(messages.pop(worker))} bytes, expected {size}")
        split = {worker: split_hash(m, checked) for worker, m in messages.items()}
        if checked and split:
            right = agreed({worker: found for worker, (_, found) in split.items()})
            for worker in [w for w, (_, found) in split.items() if found != right]:
                self._strike(worker, weights_differ(split.pop(worker)[1], right))
        return {worker: scalars for worker, (scalars, _) in split.items()}

    def _strike(self, worker: int, why: str) -> None:
        self._roster.remove(worker)
        self._store.set(f"x{worker}", why)

"""Servers, hosts and sudden deaths for tests of comparisons that many processes share."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy

from anyorder.compare import session
from anyorder.compare.run import pool


def _program(name: str) -> str | None:
    """A program of PostgreSQL, which Debian keeps outside the path; the newest version."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: p.parts[4])
    return shutil.which(name) or (str(found[-1]) if found else None)


class Server:
    """A PostgreSQL server of our own, on a free port, which can be stopped and started again."""

    def __init__(self) -> None:
        pytest.importorskip("psycopg2", reason="needs psycopg2")
        initdb, control = _program("initdb"), _program("pg_ctl")
        if initdb is None or control is None:
            pytest.skip("needs PostgreSQL")
        self._options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.folder = Path(tempfile.mkdtemp(prefix="anyorder-postgres-"))
        self._options["cwd"] = self.folder
        if os.getuid() == 0:  # the server refuses to be run by root
            try:
                shutil.chown(self.folder, "postgres")
            except LookupError:
                shutil.rmtree(self.folder)
                pytest.skip("PostgreSQL cannot be run by root, and there is no user postgres")
            self._options["user"] = "postgres"
        data = str(self.folder / "data")
        self._control = [control, "-D", data, "-l", str(self.folder / "log"), "-t", "300", "-w"]
        self._run(initdb, "-D", data, "-U", "tester", "-A", "trust", "--no-sync")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.start()

    def _run(self, *words: str) -> None:
        subprocess.run(words, check=True, **self._options)

    def start(self, addresses: str = "127.0.0.1") -> None:
        """Start it; returns when it accepts connections."""
        words = f"-p {self.port} -k {self.folder} -c listen_addresses={addresses} -c fsync=off"
        self._run(*self._control, "start", "-o", words)

    def stop(self) -> None:
        """Stop it as if it had crashed: connections are lost in the middle of anything."""
        self._run(*self._control, "stop", "-m", "immediate")

    def admit(self, network: str) -> None:
        """Let hosts of a network in, from the next start on."""
        with open(self.folder / "data" / "pg_hba.conf", "a") as file:
            file.write(f"host all all {network} trust\n")

    def url(self, host: str = "127.0.0.1") -> str:
        """Address of its database."""
        return f"postgresql://tester@{host}:{self.port}/postgres"

    def close(self) -> None:
        """Stop it and remove its files."""
        subprocess.run([*self._control, "stop", "-m", "immediate"], check=False, **self._options)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def hosts(names: tuple[str, ...]) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """Hosts that are connected by a network of their own.

    Each has its own network, name and processes, as far as the kernel can pretend.

    Yields:
        The address of this machine in that network, and for each host the words that start a
        command on it.
    """
    tools = all(map(shutil.which, ("ip", "unshare")))
    if os.getuid() != 0 or not tools:
        pytest.skip("needs root, ip and unshare, to make hosts")

    def ip(*words: str) -> bool:
        return subprocess.run(["ip", *words], capture_output=True).returncode == 0

    mark = f"{os.getpid() % 0xFFFF:x}"
    bridge, net = f"ao{mark}", f"10.213.{os.getpid() % 250}"
    made = {name: f"ao{mark}-{name}" for name in names}
    try:
        if not (
            ip("link", "add", bridge, "type", "bridge")
            and ip("addr", "add", f"{net}.1/24", "dev", bridge)
            and ip("link", "set", bridge, "up")
        ):
            pytest.skip("the kernel does not let us make a network")
        for number, space in enumerate(made.values(), start=2):
            here, there = f"{bridge}h{number}", "eth0"
            pair = ["link", "add", here, "type", "veth", "peer", "name", there, "netns", space]
            inside = ["-n", space]
            assert ip("netns", "add", space) and ip(*pair)
            assert ip("link", "set", here, "master", bridge, "up")
            assert ip(*inside, "addr", "add", f"{net}.{number}/24", "dev", there)
            assert ip(*inside, "link", "set", there, "up") and ip(
                *inside, "link", "set", "lo", "up"
            )
        enter = "--uts --pid --fork --mount-proc --kill-child".split()
        yield (
            f"{net}.1",
            {
                name: [
                    *("ip", "netns", "exec", space, "unshare", *enter, "sh", "-c"),
                    f'hostname {name}; exec "$@"',
                    "sh",
                ]
                for name, space in made.items()
            },
        )
    finally:
        for space in made.values():
            ip("netns", "del", space)
        ip("link", "del", bridge)


def compare_until(events: int, request: Any) -> int:
    """Run a comparison that is killed at a counted event; return the count if it ends before.

    Events are statements of SQL before and after their execution, commits, and files that are
    opened, renamed or removed: all that can leave something behind, in whichever thread.
    """
    left, here = events, os.getpid()

    def tick(*_: Any, **__: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0 and os.getpid() == here:  # the worker is forked with these hooks
            os.kill(here, signal.SIGKILL)

    def audit(name: str, _: Any) -> None:
        if name in ("open", "os.rename", "os.remove"):
            tick()

    for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
        sqlalchemy.event.listen(sqlalchemy.engine.Engine, name, tick)
    sys.addaudithook(audit)
    session.compare(request, report=lambda found, folder: None)
    return events - left


def nursery(pipe: Any) -> None:
    """Execute :func:`compare_until` in new processes, forked with all imports done.

    Receives its arguments, and answers with the count; None if the process was killed.
    """

    class Forked(pool.Pool):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words)
            self._context = multiprocessing.get_context("fork")

    session.Pool = Forked  # type: ignore[misc]
    optuna.storages.RDBStorage("sqlite://")  # it imports more when it is used
    while (words := pipe.recv()) is not None:
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(theirs, str(compare_until(*words)).encode())
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(theirs)
        pipe.send((status, int(os.read(ours, 99)) if status == 0 else None))
        os.close(ours)

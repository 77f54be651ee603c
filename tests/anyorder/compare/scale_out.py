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
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


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


class Deadly:
    """Kills this process at a counted call within the comparison, in whichever thread."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self, frame: Any, event: str, what: Any) -> None:
        name = frame.f_code.co_filename
        if "anyorder/compare/" in name or "sqlalchemy/engine/" in name:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def compare_until(calls: int, request: Any, out: Any) -> None:
    """Run a comparison that is killed at a counted call, or ends before; then send the count."""
    from anyorder.compare import session
    from anyorder.compare.run import pool

    class Forked(pool.Pool):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words)
            self._context = multiprocessing.get_context("fork")

    session.Pool = Forked  # type: ignore[misc]
    deadly = Deadly(calls)
    threading.setprofile(deadly)
    sys.setprofile(deadly)
    session.compare(request, report=lambda found, folder: None)
    sys.setprofile(None)
    out.send(calls - deadly.left)

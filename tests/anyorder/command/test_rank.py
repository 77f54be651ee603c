"""The command: it serves, survives kill -9, ends with Ctrl-C, and says what is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from anyorder.command import cli
from anyorder.judging import Task
from anyorder.judging.session import Session

TASK = 'parameters = {"x": 0.5}\ndef render(parameters): return parameters["x"]\n'


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "liked.py").write_text(TASK)
    return lambda *words: CliRunner().invoke(cli.app, ["rank", *words])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Starts the command in a process of its own; returns it and its address."""
    (tmp_path / "liked.py").write_text(TASK)
    running: list[subprocess.Popen[str]] = []

    def run(*words: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "anyorder.command.cli", "rank", "liked.py", *words]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        running.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                return process, found[0]
        raise AssertionError("it ended before it served")

    yield run
    for process in running:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.slow
def test_a_killed_process_goes_on_with_the_same_question(
    tmp_path: Path, start: Callable[..., tuple[subprocess.Popen[str], str]]
) -> None:
    process, address = start("--port", "0", "--seed", "3")
    with httpx2.Client(base_url=address) as client:
        token = client.get("/question").json()["token"]
        assert client.post("/answer", json={"token": token, "order": [2, 0]}).status_code == 200
        before = client.get("/question").json()
    process.send_signal(signal.SIGKILL)
    process.wait()
    port = address.rsplit(":", 1)[1].strip("/")
    process, again = start("--port", port)
    assert again == address
    with httpx2.Client(base_url=address) as client:
        assert client.get("/question").json() == before
        answer = {"token": before["token"], "order": [1]}
        assert client.post("/answer", json=answer).json() == {"stored": 2}
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert "2 answers; best parameters: rankings/liked/best.json" in process.stdout.read()
    assert process.wait() == 0
    best = json.loads((tmp_path / "rankings/liked/best.json").read_text())
    assert best["answers"] == 2 and best["steps"] == 1


def test_what_is_wrong_is_told_with_its_exit_code(call: Callable[..., Any]) -> None:
    for words, code, says in (
        (["none.py"], 3, "does not exist"),
        (["math"], 2, "it lacks parameters and render"),
        (["liked.py", "--lr", "-1"], 2, "lr: expected a value >= 0"),
        (["liked.py", "--top", "9"], 2, "top: expected at most points"),
        (["liked.py", "--session", "liked.py"], 4, "cannot be written"),
        (["liked.py", "--line-search", "0"], 2, "adapt: expected line_search > 0"),
    ):
        found = call(*words)
        assert (found.exit_code, says in found.stderr) == (code, True), found.output


def test_a_port_in_use_is_told(call: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        found = call("liked.py", "--port", port)
    assert found.exit_code == 2
    assert f"cannot listen on 127.0.0.1, port {port}" in found.stderr


def test_a_session_in_use_is_told(call: Callable[..., Any]) -> None:
    task = Task("liked", {"x": 0.5}, lambda given: given["x"])
    session = Session(Path("rankings/liked"), task, {})
    found = call("liked.py")
    assert found.exit_code == 4 and "another anyorder rank uses" in found.stderr
    session.close()
    found = call("liked.py", "--points", "7")
    assert found.exit_code == 4 and "has points = 4, got 7" in found.stderr

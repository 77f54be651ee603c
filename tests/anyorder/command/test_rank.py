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
    tmp_path: Path, start: Callable[..., tuple[subprocess.Popen[str], str]], browser: Any
) -> None:
    """The page stays open meanwhile, and the order on it too."""
    from playwright.sync_api import expect

    page = browser.new_page()
    process, address = start("--port", "0", "--seed", "3")
    page.goto(address)
    expect(page.locator("#pool .card")).to_have_count(4)
    page.keyboard.press("3")
    page.keyboard.press("Enter")
    expect(page.locator("#count")).to_have_text("Question 2 of 20")
    before = page.locator("#pool").inner_text()
    page.keyboard.press("2")
    process.send_signal(signal.SIGKILL)
    process.wait()
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_contain_text("The server does not answer")
    process, again = start("--port", address.rsplit(":", 1)[1].strip("/"))
    assert again == address
    expect(page.locator("#message")).to_have_text("The server is back; nothing was lost.")
    expect(page.locator("#count")).to_have_text("Question 2 of 20")
    expect(page.locator('#order .card[data-place="1"]')).to_be_visible()
    page.keyboard.press("2")  # out again, so that all four are in their places
    assert page.locator("#pool").inner_text() == before
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    expect(page.locator("#count")).to_have_text("Question 3 of 20")
    page.close()
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

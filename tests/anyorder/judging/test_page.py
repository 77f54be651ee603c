"""The page's requests: questions, files, answers, errors in words, other sites kept out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from anyorder.judging.page import create_app, is_loopback
from anyorder.judging.session import Session
from anyorder.judging.task import Task


def grey(given: dict[str, Any]) -> Any:
    return np.full((2, 3), given["x"])


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    session = Session(tmp_path / "s", Task("grey", {"x": 0.5}, grey, "Which grey?"), {})
    yield session
    session.close()


@pytest.fixture
def client(session: Session) -> Iterator[TestClient]:
    with TestClient(create_app(session), base_url="http://127.0.0.1:8765") as client:
        yield client


def test_the_page_and_its_files_ask_nothing_from_elsewhere(client: TestClient) -> None:
    kinds = {"/": "text/html", "/static/page.js": "text/javascript"}
    kinds |= {"/static/page.css": "text/css", "/static/icon.svg": "image/svg"}
    for path, kind in kinds.items():
        found = client.get(path)
        assert found.status_code == 200 and found.headers["content-type"].startswith(kind)
        assert found.headers["content-security-policy"].startswith("default-src 'none'")
        assert "http" not in found.text.replace("http://www.w3.org/2000/svg", "")
    assert client.get("/static/session.py").status_code == 404
    assert client.get("/nowhere").json() == {"message": "404: Not Found"}


def test_a_question_is_described_and_its_files_are_there(
    client: TestClient, session: Session
) -> None:
    found = client.get("/question").json()
    assert (found["prompt"], found["part"], found["need"]) == ("Which grey?", "order", 1)
    assert (found["number"], found["answered"], found["questions"]) == (1, 0, 20)
    assert found["token"] == client.get("/open").json()["token"]
    contents = {each["content"] for each in found["candidates"]}
    assert len(contents) == 4
    for content in contents:
        file = client.get(content)
        assert (file.status_code, file.headers["content-type"]) == (200, "image/png")
        assert "sandbox" in file.headers["content-security-policy"]
    assert client.get(f"/media/{found['token']}/4").status_code == 404
    assert client.get("/media/0000/0").status_code == 404
    assert client.get("/best").json() == {"kind": "image", "content": "/best/media"}
    assert client.get("/best/media").content.startswith(b"\x89PNG")
    assert client.get("/best.json").json()["parameters"] == {"x": 0.5}
    assert "attachment" in client.get("/best.json").headers["content-disposition"]


def test_answers_undo_and_more(client: TestClient, session: Session) -> None:
    token = client.get("/open").json()["token"]
    first = {"token": token, "order": [2, [0, 1], 3]}
    assert client.post("/answer", json=first).json() == {"stored": 1}
    again = client.post("/answer", json=first)
    assert again.status_code == 409
    assert "not open any more" in again.json()["message"]
    assert "Question 2 is open" in again.json()["message"]
    wrong = client.post("/answer", json={"token": session.question.token, "order": [9]})
    assert wrong.status_code == 422 and "there is no position 9" in wrong.json()["message"]
    assert client.post("/undo", json={"token": session.question.token}).json() == {"stored": 0}
    assert session.question.token == token
    assert client.post("/more", json={"questions": 20}).json() == {"stored": 0}
    assert session.options["questions"] == 40


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'"x"', b'{"token": "x"}'])
def test_what_is_no_request_is_refused(client: TestClient, body: bytes) -> None:
    found = client.post("/answer", content=body, headers={"content-type": "application/json"})
    assert found.status_code == 400


def test_a_disk_that_is_full_is_told(
    client: TestClient, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("anyorder.judging.session.write_whole", full)
    found = client.post("/answer", json={"token": session.question.token, "order": [0]})
    assert found.status_code == 503 and "nothing was changed" in found.json()["message"]


def test_a_candidate_that_cannot_be_shown_is_told(tmp_path: Path) -> None:
    session = Session(tmp_path / "s", Task("t", {"x": 1.0}, lambda _: 1 / 0), {})
    with TestClient(create_app(session), base_url="http://localhost") as client:
        found = client.get("/question")
    assert found.status_code == 422
    assert found.json() == {"message": "render of t failed: ZeroDivisionError: division by zero"}
    session.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json", "origin": "http://elsewhere.example"},
        {"content-type": "application/json", "origin": "null"},
    ],
)
def test_other_sites_change_nothing(
    client: TestClient, session: Session, headers: dict[str, str]
) -> None:
    body = f'{{"token": "{session.question.token}", "order": [0]}}'
    own = {"content-type": "application/json", "origin": "http://127.0.0.1:8765"}
    assert client.post("/answer", content=body, headers=headers).status_code == 403
    assert session.answers == []
    assert client.post("/answer", content=body, headers=own).status_code == 200


def test_other_names_of_this_machine_are_refused(client: TestClient, session: Session) -> None:
    for host, status in (("elsewhere.example", 400), ("", 400), ("localhost:8765", 200),
                         ("[::1]:8765", 200)):  # fmt: skip
        assert client.get("/open", headers={"host": host}).status_code == status
    with TestClient(create_app(session, "0.0.0.0"), base_url="http://studio.example") as client:
        assert client.get("/open").status_code == 200


def test_what_only_this_machine_reaches() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "192.168.1.2", "::", "studio.example", "")))


def test_tabs_that_ask_at_once_render_once(tmp_path: Path, at_once: Any) -> None:
    rendered: list[int] = []

    def render(given: dict[str, Any]) -> str:
        rendered.append(threading.get_ident())
        return "text"

    session = Session(tmp_path / "s", Task("t", {"x": 1.0}, render), {})
    with TestClient(create_app(session), base_url="http://localhost") as client:
        assert at_once(lambda: client.get("/question").json()) == []
    assert len(rendered) == 4
    session.close()

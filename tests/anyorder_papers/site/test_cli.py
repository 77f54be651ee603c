"""The commands serve, export and digest."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from anyorder_papers.database import Database
from anyorder_papers.site import cli
from anyorder_papers.site.entries import Library
from anyorder_papers.subscriptions import confirm, request

if TYPE_CHECKING:
    from click.testing import Result

    from conftest import Sink

APP = typer.Typer()
cli.register(APP)


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_library: Library) -> None:
    for name in ("DATABASE", "BASE_URL", "SMTP_URL", "MAIL_FROM", "SECRET"):
        monkeypatch.delenv(f"ANYORDER_{name}", raising=False)
    monkeypatch.setenv("ANYORDER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cli, "load_library", lambda listings=None: small_library)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(APP, list(arguments))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    import uvicorn

    seen: dict[str, Any] = {}
    monkeypatch.setattr(uvicorn, "run", lambda app, **options: seen.update(options, app=app))
    return seen


def test_serve_starts_with_plain_settings(started: dict[str, Any], tmp_path: Path) -> None:
    result = run("serve", "--port", "8123")
    assert result.exit_code == 0, result.output
    assert "http://127.0.0.1:8123/" in result.output
    assert "subscriptions are disabled" in result.output
    assert (started["host"], started["port"]) == ("127.0.0.1", 8123)
    assert started["access_log"] is False
    assert started["proxy_headers"] is False
    assert (tmp_path / "home" / "papers.sqlite3").is_file()


def test_serve_believes_only_the_proxies_named(started: dict[str, Any]) -> None:
    run("serve", "--trusted-proxy", "10.0.0.1", "--trusted-proxy", "10.0.0.2")
    assert started["proxy_headers"] is True
    assert started["forwarded_allow_ips"] == ["10.0.0.1", "10.0.0.2"]


def test_serving_others_needs_the_address_they_use(started: dict[str, Any]) -> None:
    result = run("serve", "--host", "0.0.0.0")
    assert result.exit_code == 2
    assert "expected --base-url" in result.output
    assert started == {}
    assert run("serve", "--host", "0.0.0.0", "--base-url", "https://x.example").exit_code == 0
    assert run("serve", "--host", "::1").exit_code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--base-url", "nonsense"), "expected an address such as"),
        (("--base-url", "http://[::1"), "expected an address such as"),
        (("--base-url", "http://x:99999"), "expected an address such as"),
        (("--smtp-url", "smtp://[u:secret@", "--mail-from", "a@b.example"), "an SMTP URL"),
        (("--database", "mysql://x:secret@y/z"), "expected a sqlite:// or postgresql:// URL"),
        (("--smtp-url", "smtp://u:secret@host"), "expected a sender"),
        (("--smtp-url", "x://u:secret@host", "--mail-from", "a@b.example"), "an SMTP URL"),
        (("--database", "sqlite:////proc/nowhere/x"), "cannot use the database"),
    ],
)
def test_wrong_settings_are_one_clear_line(
    started: dict[str, Any], options: tuple[str, ...], message: str
) -> None:
    result = run("serve", *options)
    assert result.exit_code == 2
    assert message in result.output
    assert "secret" not in result.output
    assert "Traceback" not in result.output


def test_a_public_site_without_a_named_proxy_is_warned(started: dict[str, Any]) -> None:
    public = ("serve", "--base-url", "https://papers.example.org")
    assert "No proxy is set" in run(*public).output
    assert "No proxy is set" not in run(*public, "--trusted-proxy", "10.0.0.1").output
    assert "No proxy is set" not in run("serve").output


def test_listings_that_cannot_be_read_are_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("ANYORDER_HOME", str(tmp_path / "home"))
    for folder in (tmp_path, tmp_path / "none"):
        result = run("export", str(tmp_path / "out"), "--listings", str(folder))
        assert result.exit_code == 2
        assert "expected a folder with listings" in result.output


def test_a_damaged_database_is_one_clear_line(started: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "papers.sqlite3").write_bytes(b"no database at all" * 99)
    result = run("serve")
    assert result.exit_code == 2
    assert "is damaged" in result.output


def test_export_tells_what_it_wrote(tmp_path: Path) -> None:
    result = run("export", str(tmp_path / "out"))
    assert result.exit_code == 0
    assert "Wrote 9 pages" in result.output
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("")
    assert run("export", str(tmp_path / "mine")).exit_code == 2


@pytest.fixture
def subscriber(tmp_path: Path) -> str:
    """Somebody who subscribed before any paper was known; the URL of the database."""
    url = f"sqlite:///{tmp_path / 'own.sqlite3'}"
    database = Database(url)
    now = int(time.time())
    token = request(database, "a@example.org", "daily", now)
    assert token is not None
    confirm(database, token, now)
    database.close()
    return url


def test_digest_tells_what_it_would_send_and_sends_nothing(subscriber: str, sink: Sink) -> None:
    for _ in range(2):
        result = run("digest", "--database", subscriber)
        assert result.exit_code == 0
        assert "Would send 1 digest (1 daily, 0 weekly)" in result.output
        assert "paper: Tuning with little memory" in result.output
        assert "example.org" not in result.output
    assert sink.letters == []


def test_digest_sends_once(subscriber: str, sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYORDER_DATABASE", subscriber)
    monkeypatch.setenv("ANYORDER_BASE_URL", "https://papers.example.org/")
    monkeypatch.setenv("ANYORDER_SMTP_URL", f"smtp+plain://127.0.0.1:{sink.port}")
    monkeypatch.setenv("ANYORDER_MAIL_FROM", "Papers <papers@example.org>")
    first, second = run("digest", "--send"), run("digest", "--send")
    assert first.exit_code == second.exit_code == 0
    assert "Sent 1 digest." in first.output
    assert "Sent 0 digests." in second.output
    assert sink.recipients == ["a@example.org"]
    assert "https://papers.example.org/paper/71" in sink.letters[0].as_string()


def test_a_refused_digest_is_told_by_the_exit_code(subscriber: str, sink: Sink) -> None:
    sink.answers = ["554 no"]
    options = ["--base-url", "https://x.example", "--mail-from", "p@example.org"]
    options += ["--smtp-url", f"smtp+plain://127.0.0.1:{sink.port}", "--database", subscriber]
    result = run("digest", "--send", *options)
    assert result.exit_code == 1
    assert "1 were rejected" in result.output


def test_sending_needs_an_address_and_a_server(subscriber: str) -> None:
    result = run("digest", "--send", "--database", subscriber)
    assert result.exit_code == 2
    assert "--send needs --base-url and --smtp-url" in result.output


def test_the_commands_cost_nothing_until_they_run() -> None:
    assert "uvicorn" not in vars(cli)
    assert sys.modules["anyorder_papers.site.cli"] is cli

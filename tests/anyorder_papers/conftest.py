"""What the tests of the catalogue's site and digest share."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from anyorder_papers.catalogue import Paper
from anyorder_papers.database import Database
from anyorder_papers.mail import MailSettings

SENDER = "AnyOrder papers <papers@example.org>"


@pytest.fixture
def make_paper() -> Callable[..., Paper]:
    def make(id: int = 1, **changes: Any) -> Paper:
        values: dict[str, Any] = {
            "title": f"Paper number {id}",
            "topic": "first",
            "order": "1",
            "description": f"What paper {id} does.",
            "listings": ("000",),
            "state": "planned",
            "claimed": "planned",
            "date": date(2024, 1, 1),
            "authors": 3,
        }
        return Paper(id=id, **{**values, **changes})

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def any_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A URL of an empty database, of each kind that can be had here."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'papers.sqlite3'}"
        return
    url = os.environ.get("ANYORDER_TEST_POSTGRES")
    if not url:
        pytest.skip("ANYORDER_TEST_POSTGRES does not name an empty PostgreSQL database")
    _empty(url)
    yield url
    _empty(url)


def _empty(url: str) -> None:
    from anyorder_papers.database import metadata

    database = Database(url)
    metadata.drop_all(database.engine)
    database.close()


@pytest.fixture
def any_database(any_database_url: str) -> Iterator[Database]:
    database = Database(any_database_url)
    yield database
    database.close()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'papers.sqlite3'}")
    yield database
    database.close()


@dataclass
class Sink:
    """A mail server that keeps what it gets; ``answers`` are given instead of taking a letter."""

    port: int = 0
    letters: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    before_answer: Callable[[], None] | None = None
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, count: int) -> None:
        """Wait until so many letters are here."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.letters) == count, timeout=300)

    @property
    def settings(self) -> MailSettings:
        return MailSettings("127.0.0.1", self.port, "none", SENDER, timeout=300.0)

    async def handle_DATA(  # noqa: N802 -- aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        answer = self.answers.pop(0) if self.answers else "250 taken"
        if answer == "hang up":
            assert server.transport is not None
            server.transport.abort()
        elif answer.startswith("250"):
            assert isinstance(envelope.content, bytes)
            letter = message_from_bytes(envelope.content, policy=policy.default)
            assert isinstance(letter, EmailMessage)
            with self.arrived:
                self.letters.append(letter)
                self.recipients.extend(envelope.rcpt_tos)
                self.arrived.notify_all()
        if self.before_answer is not None:
            self.before_answer()
        return answer


class AnyPort(Controller):
    """Listens where the system finds a free port, and knows which."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink()
    controller = AnyPort(sink, hostname="127.0.0.1", port=0, ready_timeout=300)
    controller.start()
    sink.port = controller.port
    yield sink
    controller.stop()

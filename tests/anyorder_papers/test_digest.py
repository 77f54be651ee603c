"""Digests: due when they should be, sent once, whatever happens in between."""

from __future__ import annotations

import datetime as dt
import logging
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from anyorder_papers import digest as digest_module
from anyorder_papers.database import Database, deliveries, items, subscribers
from anyorder_papers.digest import Item, Report, due, send_due, sync_items
from anyorder_papers.mail import MailError, MailSettings, Session
from anyorder_papers.subscriptions import confirm, request, unsubscribe

if TYPE_CHECKING:
    from conftest import Sink

BASE = "https://papers.example.org"
MONDAY = int(dt.datetime(2025, 9, 1, 6, tzinfo=dt.UTC).timestamp())
DAY = 24 * 3600


def announced(*numbers: int) -> dict[str, Item]:
    return {
        f"paper:{n}": Item(f"paper:{n}", f"Title {n}", "Text.", f"/paper/{n}", "paper")
        for n in numbers
    }


def subscribe(database: Database, address: str, frequency: str, now: int = MONDAY) -> None:
    token = request(database, address, frequency, now)
    assert token is not None
    assert confirm(database, token, now)


@pytest.fixture
def people(any_database: Database) -> Database:
    """A daily and a weekly subscriber, and one who never confirmed; two papers are old."""
    sync_items(any_database, announced(1, 2), MONDAY)
    subscribe(any_database, "daily@example.org", "daily")
    subscribe(any_database, "weekly@example.org", "weekly")
    request(any_database, "waiting@example.org", "daily", MONDAY)
    return any_database


def send(database: Database, sink: Sink, numbers: tuple[int, ...], now: int) -> Report:
    return send_due(database, announced(*numbers), sink.settings, BASE, lambda: now)


def test_what_was_there_before_is_not_announced(people: Database, sink: Sink) -> None:
    assert send(people, sink, (1, 2), MONDAY) == Report()
    assert sink.letters == []


def test_new_items_go_to_those_who_confirmed(people: Database, sink: Sink) -> None:
    assert send(people, sink, (1, 2, 3), MONDAY) == Report(sent=2)
    assert sink.recipients == ["daily@example.org", "weekly@example.org"]
    text = sink.letters[0].get_body(("plain",)).get_content()  # type: ignore[union-attr]
    assert "Title 3" in text and "Title 2" not in text


def test_running_again_sends_nothing(people: Database, sink: Sink) -> None:
    send(people, sink, (1, 2, 3), MONDAY)
    for later in (0, 60, DAY, 8 * DAY):
        assert send(people, sink, (1, 2, 3), MONDAY + later) == Report()
    assert len(sink.letters) == 2


def test_daily_is_once_a_day_and_weekly_once_a_week(people: Database, sink: Sink) -> None:
    send(people, sink, (1, 2, 3), MONDAY)
    assert send(people, sink, (1, 2, 3, 4), MONDAY + 3600) == Report()
    assert send(people, sink, (1, 2, 3, 4), MONDAY + DAY) == Report(sent=1)
    assert sink.recipients[2:] == ["daily@example.org"]
    # Sunday belongs to Monday's week; the next Monday does not.
    assert send(people, sink, (1, 2, 3, 4), MONDAY + 6 * DAY) == Report()
    assert send(people, sink, (1, 2, 3, 4, 5), MONDAY + 7 * DAY) == Report(sent=2)
    weekly = sink.letters[-1].get_body(("plain",)).get_content()  # type: ignore[union-attr]
    assert "Title 4" in weekly and "Title 5" in weekly


def test_telling_changes_nothing_and_agrees_with_sending(people: Database, sink: Sink) -> None:
    told = due(people, announced(1, 2, 3, 4), MONDAY)
    assert [(d.frequency, [i.key for i in d.items]) for d in told] == [
        ("daily", ["paper:3", "paper:4"]),
        ("weekly", ["paper:3", "paper:4"]),
    ]
    with people.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(items)) == 2
    assert send(people, sink, (1, 2, 3, 4), MONDAY) == Report(sent=2)
    assert due(people, announced(1, 2, 3, 4), MONDAY) == []


class Killed(BaseException):
    """Stands for a process that is gone: no handler of ours may run."""


@pytest.mark.parametrize("moment", ["before the server has it", "after the server has it"])
def test_a_run_killed_at_a_letter_never_sends_it_again(
    people: Database, sink: Sink, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    real = Session.send

    def killed(self: Session, message: object) -> None:
        if moment == "after the server has it":
            real(self, message)  # type: ignore[arg-type]
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Session, "send", killed)
        with pytest.raises(Killed):
            send(people, sink, (1, 2, 3), MONDAY)
    before = len(sink.letters)
    # The other subscriber's is still due; the one that was cut off is not.
    assert send(people, sink, (1, 2, 3), MONDAY + 60) == Report(sent=1)
    assert send(people, sink, (1, 2, 3), MONDAY + 7200) == Report(stale=1)
    assert send(people, sink, (1, 2, 3), MONDAY + 7300) == Report()
    assert len(sink.letters) == before + 1
    assert len(set(sink.recipients)) == len(sink.recipients)


PROGRAM = """
import sys
from anyorder_papers.database import Database
from anyorder_papers.digest import Item, send_due
from anyorder_papers.mail import MailSettings
url, port, now = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
items = {"paper:3": Item("paper:3", "Title 3", "Text.", "/paper/3", "paper")}
mail = MailSettings("127.0.0.1", port, "none", "papers@example.org")
send_due(Database(url), items, mail, "https://papers.example.org", lambda: now)
"""


def test_a_process_killed_while_the_server_takes_the_letter(
    people: Database, any_database_url: str, sink: Sink
) -> None:
    command = [sys.executable, "-c", PROGRAM, any_database_url, str(sink.port), str(MONDAY)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment) as process:
        sink.before_answer = process.kill
        assert process.wait() == -signal.SIGKILL
    sink.before_answer = None
    assert len(sink.letters) == 1
    assert send(people, sink, (1, 2, 3), MONDAY + 60) == Report(sent=1)
    assert sorted(sink.recipients) == ["daily@example.org", "weekly@example.org"]
    assert send(people, sink, (1, 2, 3), MONDAY + 7200) == Report(stale=1)


def test_a_run_killed_after_claiming_leaves_the_claim(
    people: Database, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: object) -> None:
        raise Killed

    monkeypatch.setattr(digest_module, "_finish", killed)
    with pytest.raises(Killed):
        send(people, sink, (1, 2, 3), MONDAY)
    monkeypatch.undo()
    assert send(people, sink, (1, 2, 3), MONDAY + 60) == Report(sent=1)
    assert sorted(sink.recipients) == ["daily@example.org", "weekly@example.org"]


def test_a_refused_digest_is_tried_again(
    people: Database, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    sink.answers = ["554 full"]
    with caplog.at_level(logging.DEBUG):
        assert send(people, sink, (1, 2, 3), MONDAY) == Report(sent=1, refused=1)
    # The sink in this process logs all that it hears; a real server is another process.
    lines = [r.getMessage() for r in caplog.records if not r.name.startswith("mail.log")]
    assert any("refused the message (554)" in line for line in lines)
    assert not any("example.org" in line for line in lines)
    assert send(people, sink, (1, 2, 3), MONDAY + 60) == Report(sent=1)
    assert sink.recipients == ["weekly@example.org", "daily@example.org"]


def test_a_lost_digest_is_not_sent_again(people: Database, sink: Sink) -> None:
    sink.answers = ["hang up"]
    assert send(people, sink, (1, 2, 3), MONDAY) == Report(sent=1, lost=1)
    assert send(people, sink, (1, 2, 3), MONDAY + 60) == Report()
    assert sink.recipients == ["weekly@example.org"]


def test_without_a_server_everything_stays_due(people: Database, sink: Sink) -> None:
    gone = MailSettings("127.0.0.1", 1, "none", "p@example.org")
    with pytest.raises(MailError):
        send_due(people, announced(1, 2, 3), gone, BASE, lambda: MONDAY)
    assert send(people, sink, (1, 2, 3), MONDAY) == Report(sent=2)


def test_two_runs_at_once_share_the_work(
    people: Database, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = digest_module.due

    def slow(*args: object) -> object:
        found = real(*args)  # type: ignore[arg-type]
        monkeypatch.setattr(digest_module, "due", real)
        # Another run overtakes this one between looking and claiming.
        assert send(people, sink, (1, 2, 3), MONDAY) == Report(sent=2)
        return found

    monkeypatch.setattr(digest_module, "due", slow)
    assert send(people, sink, (1, 2, 3), MONDAY) == Report()
    assert len(sink.letters) == 2


def test_every_letter_has_a_working_link_to_leave(people: Database, sink: Sink) -> None:
    send(people, sink, (1, 2, 3), MONDAY)
    links = [str(letter["List-Unsubscribe"]).strip("<>") for letter in sink.letters]
    assert len(set(links)) == 2
    assert unsubscribe(people, links[0].rpartition("/")[2])
    send(people, sink, (1, 2, 3, 4), MONDAY + 7 * DAY)
    assert sink.recipients[2:] == ["weekly@example.org"]


def test_items_that_are_gone_are_left_out(people: Database, sink: Sink) -> None:
    sync_items(people, announced(1, 2, 3), MONDAY)
    assert send(people, sink, (1, 2), MONDAY) == Report()


def test_sending_records_what_went_out(people: Database, sink: Sink) -> None:
    send(people, sink, (1, 2, 3), MONDAY)
    with people.read() as connection:
        states = list(connection.scalars(sa.select(deliveries.c.state)))
        sent = list(connection.scalars(sa.select(subscribers.c.last_sent)))
    assert states == ["sent", "sent"]
    assert sorted(sent, key=str) == [MONDAY, MONDAY, None]


def test_no_representation_holds_an_address(people: Database) -> None:
    found = due(people, announced(1, 2, 3), MONDAY)
    assert "example.org" not in repr(found)
    claim = digest_module._claim(people, found[0], MONDAY)
    assert "example.org" not in repr(claim)

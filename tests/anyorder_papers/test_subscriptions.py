"""Asking for the digest, confirming, leaving."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from anyorder_papers.database import Database, deliveries, items, subscribers, tokens
from anyorder_papers.mail import AddressError
from anyorder_papers.subscriptions import (
    CONFIRM_SECONDS,
    DAY_SECONDS,
    PAUSE_SECONDS,
    confirm,
    purge,
    request,
    token_hash,
    unsubscribe,
    unsubscribe_token,
)

T = 1_700_000_000


def rows(database: Database, table: sa.Table) -> list[sa.Row[tuple[object, ...]]]:
    with database.read() as connection:
        return list(connection.execute(sa.select(table)).all())


def asked(database: Database, address: str = "a@example.org", now: int = T) -> str:
    token = request(database, address, "weekly", now)
    assert token is not None
    return token


def test_nothing_is_confirmed_before_the_token_comes_back(any_database: Database) -> None:
    token = asked(any_database)
    assert rows(any_database, subscribers)[0].confirmed is None
    assert confirm(any_database, token, T + 5)
    person = rows(any_database, subscribers)[0]
    assert (person.confirmed, person.frequency) == (T + 5, "weekly")


def test_tokens_are_random_and_stored_as_hashes_only(any_database: Database) -> None:
    token = asked(any_database)
    other = asked(any_database, "b@example.org")
    assert token != other
    assert len(token) == 43  # 256 bits in base 64
    stored = rows(any_database, tokens)
    assert {row.hash for row in stored} == {token_hash(token), token_hash(other)}
    assert all(token not in str(row) for row in stored)
    assert not confirm(any_database, token_hash(token), T)


def test_a_token_works_once_for_its_purpose_and_time(any_database: Database) -> None:
    token = asked(any_database)
    assert not unsubscribe(any_database, token)
    assert not confirm(any_database, token, T + CONFIRM_SECONDS)
    assert not confirm(any_database, token + "x", T)
    assert not confirm(any_database, "\ud800", T)
    assert confirm(any_database, token, T + CONFIRM_SECONDS - 1)
    assert not confirm(any_database, token, T + CONFIRM_SECONDS - 1)


def test_asking_looks_the_same_for_a_known_address(any_database: Database) -> None:
    confirm(any_database, asked(any_database), T)
    again = request(any_database, "A@EXAMPLE.org", "daily", T + PAUSE_SECONDS)
    assert again is not None
    assert len(rows(any_database, subscribers)) == 1
    # Only the owner of the mailbox changes anything.
    assert rows(any_database, subscribers)[0].frequency == "weekly"
    assert confirm(any_database, again, T + PAUSE_SECONDS)
    person = rows(any_database, subscribers)[0]
    assert (person.frequency, person.confirmed) == ("daily", T)


def test_nobody_can_fill_a_mailbox(any_database: Database) -> None:
    asked(any_database)
    assert request(any_database, "a@example.org", "daily", T + PAUSE_SECONDS - 1) is None
    asked(any_database, now=T + PAUSE_SECONDS)
    third = asked(any_database, now=T + 2 * PAUSE_SECONDS)
    assert request(any_database, "a@example.org", "daily", T + 3 * PAUSE_SECONDS) is None
    # Confirming does not open the gate again.
    confirm(any_database, third, T + 3 * PAUSE_SECONDS)
    purge(any_database, T + 3 * PAUSE_SECONDS)
    assert request(any_database, "a@example.org", "daily", T + 4 * PAUSE_SECONDS) is None
    assert request(any_database, "a@example.org", "daily", T + DAY_SECONDS) is not None


def test_the_first_digest_starts_where_the_confirmation_was(any_database: Database) -> None:
    with any_database.write() as connection:
        for key in ("paper:1", "paper:2"):
            connection.execute(sa.insert(items).values(key=key, seen=T))
    confirm(any_database, asked(any_database), T)
    newest = max(row.seq for row in rows(any_database, items))
    assert rows(any_database, subscribers)[0].cursor == newest


def test_leaving_deletes_everything_about_the_address(any_database: Database) -> None:
    confirm(any_database, asked(any_database), T)
    confirm(any_database, asked(any_database, "b@example.org"), T)
    person, other = rows(any_database, subscribers)
    with any_database.write() as connection:
        token = unsubscribe_token(connection, person.id, T)
        connection.execute(
            sa.insert(deliveries).values(
                subscriber=person.id, before=0, after=1, state="sent", at=T
            )
        )
    assert unsubscribe(any_database, token)
    assert [row.id for row in rows(any_database, subscribers)] == [other.id]
    assert {row.subscriber for row in rows(any_database, tokens)} == {other.id}
    assert rows(any_database, deliveries) == []
    assert not unsubscribe(any_database, token)


def test_addresses_never_confirmed_are_forgotten(any_database: Database) -> None:
    asked(any_database)
    confirm(any_database, asked(any_database, "b@example.org"), T)
    assert purge(any_database, T + CONFIRM_SECONDS - 1) == 0
    assert purge(any_database, T + CONFIRM_SECONDS) == 1
    assert [row.address for row in rows(any_database, subscribers)] == ["b@example.org"]
    assert rows(any_database, tokens) == []


def test_wrong_questions_store_nothing(any_database: Database) -> None:
    with pytest.raises(AddressError):
        request(any_database, "nobody", "weekly", T)
    with pytest.raises(ValueError, match="expected daily or weekly, got 'hourly'"):
        request(any_database, "a@example.org", "hourly", T)
    assert rows(any_database, subscribers) == []

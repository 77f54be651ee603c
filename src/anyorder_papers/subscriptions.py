"""Who gets the digest: asking, confirming, leaving.

Asking and confirming run the same way for a new address, a waiting one and a confirmed one, so
that no answer tells whether an address is known. A token is 256 random bits; only its SHA-256 is
stored. Leaving deletes everything about the address.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

import sqlalchemy as sa

from anyorder_papers.database import Database, deliveries, insert_new, items, subscribers, tokens
from anyorder_papers.mail import check_address

FREQUENCIES = ("daily", "weekly")
CONFIRM_SECONDS = 48 * 3600
# Between two confirmation mails to one address, and how many it may get in one day.
PAUSE_SECONDS = 600
DAY_SECONDS = 24 * 3600
PER_DAY = 3


def token_hash(token: str) -> str:
    """What is stored of a token: its SHA-256 in hexadecimal."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def request(database: Database, address: str, frequency: str, now: int) -> str | None:
    """Note that somebody asked for the digest at an address.

    Args:
        database: The database.
        address: As typed.
        frequency: ``"daily"`` or ``"weekly"``; takes effect when confirmed.
        now: Seconds since 1970.

    Returns:
        The token to send to that address, or ``None`` if it was sent enough mail already. The
        caller answers its visitor the same either way.

    Raises:
        AddressError: If it is not an address.
        ValueError: If the frequency is unknown.
    """
    if frequency not in FREQUENCIES:
        raise ValueError(f"expected daily or weekly, got {frequency!r}")
    address = check_address(address)
    with database.write() as connection:
        key = address.lower()
        new = {"address": address, "address_key": key, "frequency": frequency, "created": now}
        insert_new(connection, subscribers, {**new, "cursor": 0})
        subscriber = connection.scalar(
            sa.select(subscribers.c.id).where(subscribers.c.address_key == key)
        )
        assert subscriber is not None, "inserted above or there before"
        asked = list(
            connection.scalars(
                sa.select(tokens.c.created).where(
                    tokens.c.subscriber == subscriber,
                    tokens.c.purpose == "confirm",
                    tokens.c.created > now - DAY_SECONDS,
                )
            )
        )
        if len(asked) >= PER_DAY or any(at > now - PAUSE_SECONDS for at in asked):
            return None
        return _issue(
            connection, subscriber, "confirm", frequency, now, expires=now + CONFIRM_SECONDS
        )


def confirm(database: Database, token: str, now: int) -> bool:
    """Start the digest for the address that a confirmation token went to.

    The first digest then holds what this site sees from now on. Every waiting confirmation token
    of the address is used up; they are kept as long as they count against :data:`PER_DAY`.

    Returns:
        Whether the token was valid.
    """
    with database.write() as connection:
        found = _find(connection, token, "confirm")
        if found is None or found.expires is None or found.expires <= now:
            return False
        connection.execute(
            sa.update(tokens)
            .where(tokens.c.subscriber == found.subscriber, tokens.c.purpose == "confirm")
            .values(expires=0)
        )
        newest = connection.scalar(sa.select(sa.func.max(items.c.seq))) or 0
        mine = subscribers.c.id == found.subscriber
        connection.execute(
            sa.update(subscribers)
            .where(mine, subscribers.c.confirmed.is_(None))
            .values(confirmed=now, cursor=newest)
        )
        connection.execute(sa.update(subscribers).where(mine).values(frequency=found.frequency))
        return True


def unsubscribe(database: Database, token: str) -> bool:
    """Delete the address that an unsubscribe token went to, with all that belongs to it.

    Returns:
        Whether the token was valid. The caller's answer need not depend on it: an address that is
        gone is what was asked for.
    """
    with database.write() as connection:
        found = _find(connection, token, "unsubscribe")
        if found is None:
            return False
        for table in (tokens, deliveries):
            connection.execute(sa.delete(table).where(table.c.subscriber == found.subscriber))
        connection.execute(sa.delete(subscribers).where(subscribers.c.id == found.subscriber))
        return True


def unsubscribe_token(connection: sa.Connection, subscriber: int, now: int) -> str:
    """A new token for the links of one digest; it works for as long as the address is kept."""
    return _issue(connection, subscriber, "unsubscribe", "", now, expires=None)


def purge(database: Database, now: int) -> int:
    """Delete spent tokens and addresses that were never confirmed.

    Returns:
        How many addresses were deleted.
    """
    with database.write() as connection:
        connection.execute(
            sa.delete(tokens).where(
                tokens.c.purpose == "confirm",
                tokens.c.expires <= now,
                tokens.c.created <= now - DAY_SECONDS,
            )
        )
        waiting = sa.select(tokens.c.subscriber)
        return connection.execute(
            sa.delete(subscribers).where(
                subscribers.c.confirmed.is_(None), subscribers.c.id.not_in(waiting)
            )
        ).rowcount


def _issue(
    connection: sa.Connection,
    subscriber: int,
    purpose: str,
    frequency: str,
    now: int,
    *,
    expires: int | None,
) -> str:
    token = secrets.token_urlsafe(32)
    connection.execute(
        sa.insert(tokens).values(
            hash=token_hash(token),
            purpose=purpose,
            subscriber=subscriber,
            frequency=frequency,
            created=now,
            expires=expires,
        )
    )
    return token


def _find(connection: sa.Connection, token: str, purpose: str) -> sa.Row[tuple[object, ...]] | None:
    hashed = token_hash(token)
    row = connection.execute(
        sa.select(tokens).where(tokens.c.hash == hashed, tokens.c.purpose == purpose)
    ).first()
    # The index search compares hashes, whose timing tells nothing about a token; compared again
    # in constant time so that it stays true of any database.
    return row if row is not None and hmac.compare_digest(row.hash, hashed) else None

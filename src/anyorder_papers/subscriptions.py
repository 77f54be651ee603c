"""Subscriptions to the digest: request, confirmation, unsubscription.

Requests and confirmations have the same effect for new, pending and confirmed addresses, so no
response reveals whether an address is known. A token is 256 random bits; only its SHA-256 is
stored. Unsubscribing deletes all data of the address.
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
# Time between two confirmation mails to one address, and their maximum number per day.
PAUSE_SECONDS = 600
DAY_SECONDS = 24 * 3600
PER_DAY = 3


def token_hash(token: str) -> str:
    """Return the SHA-256 of a token in hexadecimal, which is stored instead of the token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def request(database: Database, address: str, frequency: str, now: int) -> str | None:
    """Record a request for the digest at an address.

    Args:
        database: The database.
        address: The address as typed.
        frequency: ``"daily"`` or ``"weekly"``; takes effect when confirmed.
        now: Seconds since 1970.

    Returns:
        The token to send to that address, or ``None`` if it has received enough mail already. The
        caller's response must be the same in both cases.

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
    """Start the digest for the address of a confirmation token.

    The first digest contains items that are new from now on. All pending confirmation tokens of the
    address become invalid; they are kept as long as they count towards :data:`PER_DAY`.

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
    """Delete the address of an unsubscribe token with all its data.

    Returns:
        Whether the token was valid. The caller's response need not depend on it, since the address
        is deleted either way.
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
    """Create a token for the links of one digest; it is valid as long as the address is stored."""
    return _issue(connection, subscriber, "unsubscribe", "", now, expires=None)


def purge(database: Database, now: int) -> int:
    """Delete expired tokens and addresses that were never confirmed.

    Returns:
        The number of deleted addresses.
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
    # The index lookup compares hashes, whose timing reveals nothing about a token; the second, #
    # constant-time comparison ensures this for any database.
    return row if row is not None and hmac.compare_digest(row.hash, hashed) else None

"""The digest: new items since the last one, sent at most once to each subscriber.

Every item has a key (``paper:71``, ``study:chen2023lion:reproduced``) and a number in the order in
which the site first saw it. A subscriber's cursor is the last number that a digest has covered.
Before a digest is passed to the mail server, one transaction moves the cursor and writes a delivery
row. If the run dies after that, the same digest is never sent again; the remaining row is reported,
and its items are not repeated. If the mail server rejects the digest, both are undone and the next
run tries again.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa

from anyorder_papers.database import Database, deliveries, insert_new, items, meta, subscribers
from anyorder_papers.letters import digest_letter
from anyorder_papers.mail import LostError, MailSettings, RefusedError, Session
from anyorder_papers.subscriptions import purge, unsubscribe_token

log = logging.getLogger("anyorder_papers.digest")

# After this time, an unfinished delivery is assumed to belong to a dead run.
STALE_SECONDS = 3600


@dataclass(frozen=True)
class Item:
    """An item that a digest can announce.

    Args:
        key: Identifies the item across runs.
        title: One line.
        text: One or two sentences.
        path: Its page, relative to the site's URL, e.g. ``/paper/71``.
        kind: ``"paper"`` or ``"study"``.
    """

    key: str
    title: str
    text: str
    path: str
    kind: str


@dataclass(frozen=True)
class Digest:
    """A digest that is due, without the address."""

    subscriber: int
    frequency: str
    before: int
    after: int
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Report:
    """The result of a run.

    Args:
        sent: Digests that the mail server accepted.
        refused: Digests that it rejected; the next run tries them again.
        lost: Digests with an unknown outcome because the connection broke; not sent again.
        stale: Digests started by an earlier run that died; not sent again.
    """

    sent: int = 0
    refused: int = 0
    lost: int = 0
    stale: int = 0


def sync_items(database: Database, announced: Mapping[str, Item], now: int) -> int:
    """Number the items that are new to this site.

    Returns:
        The number of new items.
    """
    with database.write() as connection:
        # Serialised on PostgreSQL too: numbers must be committed in order.
        connection.execute(sa.update(meta).where(meta.c.key == "schema").values(value=meta.c.value))
        known = set(connection.scalars(sa.select(items.c.key)))
        new = [key for key in announced if key not in known]
        for key in new:
            insert_new(connection, items, {"key": key, "seen": now})
        return len(new)


def due(database: Database, announced: Mapping[str, Item], now: int) -> list[Digest]:
    """Return the digests that are due.

    Daily digests are due once a day, weekly ones once a calendar week (from Monday), both in UTC,
    and only if there are new items.
    """
    with database.read() as connection:
        known = [
            (int(seq), str(key))
            for seq, key in connection.execute(
                sa.select(items.c.seq, items.c.key).order_by(items.c.seq)
            )
        ]
        people = connection.execute(
            sa.select(
                subscribers.c.id,
                subscribers.c.frequency,
                subscribers.c.cursor,
                subscribers.c.last_sent,
            )
            .where(subscribers.c.confirmed.is_not(None))
            .order_by(subscribers.c.id)
        ).all()
    # New items: numbered as `sync_items` will number them.
    last = max((seq for seq, _ in known), default=0)
    seen = {key for _, key in known}
    unseen = [item for key, item in announced.items() if key not in seen]
    numbered = [(seq, announced[key]) for seq, key in known if key in announced]
    numbered += [(last + place, item) for place, item in enumerate(unseen, 1)]
    digests: list[Digest] = []
    for person in people:
        fresh = [(seq, item) for seq, item in numbered if seq > person.cursor]
        sent_before = person.last_sent is not None and (
            _period(person.last_sent, person.frequency) == _period(now, person.frequency)
        )
        if fresh and not sent_before:
            digests.append(
                Digest(
                    person.id,
                    person.frequency,
                    person.cursor,
                    fresh[-1][0],
                    tuple(item for _, item in fresh),
                )
            )
    return digests


def send_due(
    database: Database,
    announced: Mapping[str, Item],
    settings: MailSettings,
    base_url: str,
    clock: Callable[[], int],
) -> Report:
    """Send every digest that is due.

    It can be repeated, killed, and run twice at the same time without duplicates.

    Args:
        database: The database.
        announced: Items by key, in the order of a digest.
        settings: The mail server and the sender.
        base_url: URL of the site, for links.
        clock: Seconds since 1970.

    Raises:
        MailError: If the mail server cannot be used; unsent digests stay due.
    """
    purge(database, clock())
    sync_items(database, announced, clock())
    stale = _count_stale(database, clock())
    sent = refused = lost = 0
    with Session(settings) as session:
        for digest in due(database, announced, clock()):
            session.ready()
            claim = _claim(database, digest, clock())
            if claim is None:
                continue
            try:
                session.send(
                    digest_letter(
                        settings,
                        claim.address,
                        digest.items,
                        digest.frequency,
                        base_url,
                        claim.token,
                        clock(),
                    )
                )
            except RefusedError as error:
                _release(database, digest, claim)
                log.warning("digest of subscriber %d: %s", digest.subscriber, error)
                refused += 1
            except LostError as error:
                log.warning("digest of subscriber %d: %s", digest.subscriber, error)
                lost += 1
            else:
                _finish(database, claim)
                sent += 1
    return Report(sent, refused, lost, stale)


@dataclass(frozen=True)
class _Claim:
    delivery: int
    last_sent: int | None
    address: str = field(repr=False)
    token: str = field(repr=False)


def _claim(database: Database, digest: Digest, now: int) -> _Claim | None:
    """Claim a digest for this run; ``None`` if another run has it or the subscriber has left."""
    with database.write() as connection:
        mine = subscribers.c.id == digest.subscriber
        person = connection.execute(
            sa.select(subscribers.c.address, subscribers.c.last_sent).where(
                mine, subscribers.c.confirmed.is_not(None)
            )
        ).first()
        moved = connection.execute(
            sa.update(subscribers)
            .where(mine, subscribers.c.cursor == digest.before)
            .values(cursor=digest.after, last_sent=now)
        ).rowcount
        if person is None or moved != 1:
            return None
        delivery = connection.execute(
            sa.insert(deliveries).values(
                subscriber=digest.subscriber,
                before=digest.before,
                after=digest.after,
                state="begun",
                at=now,
            )
        ).inserted_primary_key
        assert delivery is not None, "an insert returns its key"
        token = unsubscribe_token(connection, digest.subscriber, now)
        return _Claim(int(delivery[0]), person.last_sent, person.address, token)


def _release(database: Database, digest: Digest, claim: _Claim) -> None:
    with database.write() as connection:
        connection.execute(sa.delete(deliveries).where(deliveries.c.id == claim.delivery))
        connection.execute(
            sa.update(subscribers)
            .where(subscribers.c.id == digest.subscriber, subscribers.c.cursor == digest.after)
            .values(cursor=digest.before, last_sent=claim.last_sent)
        )


def _finish(database: Database, claim: _Claim) -> None:
    with database.write() as connection:
        connection.execute(
            sa.update(deliveries).where(deliveries.c.id == claim.delivery).values(state="sent")
        )


def _count_stale(database: Database, now: int) -> int:
    """Count deliveries of dead runs, each of them once."""
    with database.write() as connection:
        return connection.execute(
            sa.update(deliveries)
            .where(deliveries.c.state == "begun", deliveries.c.at <= now - STALE_SECONDS)
            .values(state="unknown")
        ).rowcount


def _period(at: int, frequency: str) -> tuple[int, ...]:
    day = dt.datetime.fromtimestamp(at, dt.UTC).date()
    return tuple(day.isocalendar())[:2] if frequency == "weekly" else (day.toordinal(),)

"""The digest: what is new since the last one, sent at most once to each subscriber.

Everything that can be announced has a key (``paper:71``, ``study:chen2023lion:reproduced``) and a
number in the order in which the site first saw it. A subscriber's cursor is the last number that
a digest has covered. Before a digest is handed to the mail server, one transaction moves the
cursor and writes a delivery row. A run that dies at any later moment therefore never sends the
same digest again; the row left behind is reported, and its items are not repeated. A mail server
that says no for certain undoes both, so that the next run tries again.
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

# After this long, a delivery that was begun and not finished is taken to be a dead run's.
STALE_SECONDS = 3600


@dataclass(frozen=True)
class Item:
    """One thing that a digest can announce.

    Args:
        key: What makes it the same thing at the next run.
        title: One line.
        text: One or two sentences.
        path: Its page, below the site's address, e.g. ``/paper/71``.
        kind: ``"paper"`` or ``"study"``.
    """

    key: str
    title: str
    text: str
    path: str
    kind: str


@dataclass(frozen=True)
class Digest:
    """A digest that is due; holds no address."""

    subscriber: int
    frequency: str
    before: int
    after: int
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Report:
    """What a run did.

    Args:
        sent: Digests that the mail server took.
        refused: Digests that it refused; the next run tries them again.
        lost: Digests whose fate is unknown because the connection broke; not sent again.
        stale: Digests begun by an earlier run that died; not sent again.
    """

    sent: int = 0
    refused: int = 0
    lost: int = 0
    stale: int = 0


def sync_items(database: Database, announced: Mapping[str, Item], now: int) -> int:
    """Number whatever this site sees for the first time.

    Returns:
        How many items were new.
    """
    with database.write() as connection:
        # One at a time on PostgreSQL too: numbers must be committed in their order.
        connection.execute(sa.update(meta).where(meta.c.key == "schema").values(value=meta.c.value))
        known = set(connection.scalars(sa.select(items.c.key)))
        new = [key for key in announced if key not in known]
        for key in new:
            insert_new(connection, items, {"key": key, "seen": now})
        return len(new)


def due(database: Database, announced: Mapping[str, Item], now: int) -> list[Digest]:
    """The digests that should go out now.

    Daily ones once a day, weekly ones once a calendar week (from Monday), both in UTC, and only
    when there is something to tell.
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
    # Not seen before: numbered as `sync_items` will number them.
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

    Safe to run again at any time, to kill, and to run twice at once.

    Args:
        database: The database.
        announced: By key, in the order in which a digest lists them.
        settings: The mail server and the sender.
        base_url: Address of the site, for the links.
        clock: Seconds since 1970.

    Raises:
        MailError: If the mail server cannot be used; what was not handed over stays due.
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
    """Take a digest for this run; ``None`` if another run has it or the person has left."""
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
    """Count deliveries that a dead run left behind, once."""
    with database.write() as connection:
        return connection.execute(
            sa.update(deliveries)
            .where(deliveries.c.state == "begun", deliveries.c.at <= now - STALE_SECONDS)
            .values(state="unknown")
        ).rowcount


def _period(at: int, frequency: str) -> tuple[int, ...]:
    day = dt.datetime.fromtimestamp(at, dt.UTC).date()
    return tuple(day.isocalendar())[:2] if frequency == "weekly" else (day.toordinal(),)

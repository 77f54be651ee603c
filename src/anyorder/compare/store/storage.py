"""The database of a running comparison: no run is lost, and no run is executed twice.

Plan, pilot and every finished run are in the same database as the Optuna studies that mirror them
(:mod:`anyorder.compare.store.mirror`). Optuna stores trials, but has no queue in which another
process can take over the run of a killed one atomically. This is the main table,
``anyorder_items``:

* a run is *claimed* by a conditional update, which exactly one process can win;
* a claim is kept alive by a heartbeat, which is a counter. Another process may take it over, by
  the same kind of update, if the holder is known to be dead, or if the counter was unchanged for
  ``GRACE`` seconds of that process's own monotonic clock: differences between the clocks of
  machines, and jumps of a clock, do not matter;
* a run is *finished* only by the process that still holds the claim, in the same statement that
  stores its outcome.

While a server is unreachable, every transaction is repeated for a limited time. The answer to a
commit can be lost too, so each transaction has the same effect if it is executed twice.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import anyorder
from anyorder.compare.plan.items import Item, items
from anyorder.compare.plan.plan import Plan, joined
from anyorder.compare.store import holders
from anyorder.compare.store.schema import SCHEMA, Facts, Outcome, read, text_of
from anyorder.errors import AnyOrderError
from anyorder.extras import require

#: Seconds without a heartbeat after which a claim may be taken over, and between two heartbeats.
GRACE, BEAT = 60.0, 5.0
#: Seconds for which an unreachable server is tried again: at the start, and in mid-run.
START_PATIENCE, PATIENCE = 10.0, 300.0
#: Characters of the key of a run, at most.
KEY_LENGTH = 512
#: First and longest pause between two attempts, in seconds; far below ``GRACE``.
PAUSE, LONGEST_PAUSE = 0.5, 5.0
#: Options of connections: SQLite waits for another writer, PostgreSQL notices a dead network.
_CONNECT: dict[str, dict[str, Any]] = {
    "sqlite": {"timeout": 60},
    "postgresql": {
        "connect_timeout": 10,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 4,
        "tcp_user_timeout": 30_000,
    },
}

Execute = Callable[..., Any]
T = TypeVar("T")


class StorageError(AnyOrderError, OSError):
    """A folder or a database that cannot be used."""


@dataclass(frozen=True)
class Claim:
    """A run that this process has claimed, with its configuration if already known."""

    config: dict[str, Any] | None
    crashes: int


class Outage:
    """The time for which a server is unreachable, shared by the threads of a process.

    Args:
        say: called with a line for the user at the beginning and the end.
        patience: seconds after which to give up.
    """

    def __init__(self, say: Callable[[str], object], patience: float) -> None:
        self.patience, self.given_up = patience, False
        self._say, self._lock = say, threading.Lock()
        self._since: float | None = None

    def goes_on(self, reason: str) -> bool:
        """Note a failed attempt; return whether to try again."""
        with self._lock:
            now = time.monotonic()
            if self._since is None:
                self._since = now
                if not self.given_up:
                    self._say(f"{reason}; trying again for up to {self.patience:.0f} s")
            self.given_up = self.given_up or now - self._since >= self.patience
            return not self.given_up

    def over(self) -> bool:
        """Note a successful attempt; return whether it ended an outage."""
        with self._lock:
            if self._since is None:
                return False
            self._since = None
            self._say("the database is reachable again; going on")
            return True


def embedded_url(out: Path) -> str:
    """URL of the SQLite database in the folder of a comparison."""
    path = str((out / "compare.db").resolve())
    if re.fullmatch(r"[\w/. ~+:,@()-]*", path):
        return f"sqlite:///{path}"
    # Some characters have a meaning in a URL, and versions of SQLAlchemy quote them differently:
    # SQLite's own form of a path quotes them first.
    url = require("sqlalchemy").URL.create("sqlite", database=f"file:{quote(path)}")
    return url.update_query_dict({"uri": "true"}).render_as_string()


class Storage:
    """One comparison in a database.

    Args:
        url: ``sqlite:///file`` or ``postgresql://user@host/database``.
        say: called with a line for the user when a server is lost, and when it is back.
        pause: waits so many seconds; it may raise to stop waiting.

    Raises:
        StorageError: the database is unreachable, damaged or of an unsupported kind.
    """

    def __init__(
        self,
        url: str,
        *,
        say: Callable[[str], object] = lambda line: None,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._sql: Any = require("sqlalchemy")
        self.token = uuid.uuid4().hex
        self.key = ""
        self.pause = pause
        self._address = self._read(url)
        self._kind = self._address.get_backend_name()
        #: Arguments of ``sqlalchemy.create_engine``.
        self.engine_options: dict[str, Any] = {
            "pool_pre_ping": True,
            "connect_args": _CONNECT[self._kind],
        }
        self._engine = self._sql.create_engine(self._address, **self.engine_options)
        self._outage = Outage(say, START_PATIENCE)
        self._seen: dict[str, tuple[Any, float]] = {}
        self._tables()
        self._transaction(self._create)
        self._outage.patience = PATIENCE
        with self._trouble():
            self._quick_check()

    def _create(self, do: Execute) -> None:
        """Create missing tables; other processes may do the same concurrently."""
        if self._kind == "postgresql":  # its IF NOT EXISTS is not atomic
            do(self._sql.text("SELECT pg_advisory_xact_lock(20240612)"))
        for table in self._metadata.sorted_tables:
            do(self._sql.schema.CreateTable(table, if_not_exists=True))

    def _read(self, url: str) -> Any:
        try:
            address = self._sql.make_url(url)
        except self._sql.exc.ArgumentError:
            raise StorageError(
                f"cannot read the storage {url!r}; write sqlite:///FILE or "
                "postgresql://USER@HOST/DATABASE"
            ) from None
        kind = address.drivername.partition("+")[0]
        if kind not in ("sqlite", "postgresql"):
            raise StorageError(f"cannot store a comparison in {kind}; use sqlite or postgresql")
        if address.drivername == "postgresql":  # the default driver depends on SQLAlchemy
            require("psycopg2", extra="postgres")
            address = address.set(drivername="postgresql+psycopg2")
        return address

    @property
    def url(self) -> str:
        """The full URL with password, for Optuna only."""
        return self._address.render_as_string(hide_password=False)

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return self._address.render_as_string(hide_password=True)

    # The comparison ------------------------------------------------------------------------

    def begin(self, plan: Plan, *, extend: bool = False) -> Plan:
        """Begin a comparison, or continue the existing one.

        Returns:
            The plan to follow: the requested one, with earlier extensions.

        Raises:
            PlanError: the existing comparison has another plan.
            StorageError: the existing comparison was written by another version, or the name of a
                method is too long for the database.
        """
        self._refuse_long_keys(plan)
        # A file contains one comparison; a server contains many, distinguished by their plans.
        self.key = "only" if self._kind == "sqlite" else plan.fingerprint
        new = self._insert(self._plans).values(
            key=self.key,
            schema=SCHEMA,
            version=anyorder.__version__,
            plan=text_of(plan),
            facts="",
        )
        self._transaction(lambda do: do(new))
        while True:
            row = self._transaction(
                lambda do: do(self._sql.select(self._plans).where(self._mine)).one()
            )
            self._refuse_other_version(row)
            stored = read(Plan, row.plan, "plan")
            agreed = joined(stored, plan, extend=extend)
            if agreed == stored:
                return agreed
            update = self._sql.update(self._plans).where(self._mine, self._plans.c.plan == row.plan)
            changed = update.values(plan=text_of(agreed))
            self._transaction(lambda do, changed=changed: do(changed))

    def facts(self) -> Facts | None:
        """Results of the pilot; None until :meth:`keep_facts`."""
        query = self._sql.select(self._plans.c.facts).where(self._mine)
        text = self._transaction(lambda do: do(query).scalar_one())
        return read(Facts, text, "facts") if text else None

    def keep_facts(self, facts: Facts) -> Facts:
        """Store results of the pilot unless another process did; return the stored ones."""
        update = self._sql.update(self._plans).where(self._mine, self._plans.c.facts == "")
        self._transaction(lambda do: do(update.values(facts=text_of(facts))))
        kept = self.facts()
        assert kept is not None
        return kept

    def add(self, items: Sequence[tuple[Item, Mapping[str, Any] | None]]) -> None:
        """Add runs, with their configuration if already known; existing runs are not changed."""
        rows = [
            {
                "comparison": self.key,
                "key": item.key,
                "state": "waiting",
                "config": None if config is None else json.dumps(dict(config)),
                "beat": 0,
                "crashes": 0,
                "mirrored": 0,
            }
            for item, config in items
        ]
        self._transaction(lambda do: do(self._insert(self._items), rows))

    # Runs ----------------------------------------------------------------------------------

    def claim(self, item: Item) -> Claim | None:
        """Try to claim a run; None if another process has claimed or finished it."""
        holder = json.dumps({**holders.me(), "token": self.token})
        return self._transaction(lambda do: self._claim(do, item, holder))

    def _claim(self, do: Execute, item: Item, holder: str) -> Claim | None:
        t, mine = self._items.c, self._item(item)
        query = self._sql.select(t.state, t.token, t.holder, t.beat, t.config, t.crashes)
        found = do(query.where(mine)).one()
        claim = Claim(None if found.config is None else json.loads(found.config), found.crashes)
        if found.state == "running" and found.token == self.token:
            return claim  # the answer to an earlier attempt was lost
        if found.state == "waiting":
            free = t.state == "waiting"
        elif found.state == "running" and self._abandoned(item.key, found.holder, found.beat):
            free = (t.state == "running") & (t.token == found.token) & (t.beat == found.beat)
        else:
            return None
        won = do(
            self._sql.update(self._items)
            .where(mine, free)
            .values(state="running", holder=holder, token=self.token, beat=t.beat + 1)
        ).rowcount
        return claim if won else None

    def _abandoned(self, name: str, holder: str, beat: int) -> bool:
        """Whether a holder is dead, or its heartbeat unchanged for ``GRACE`` seconds."""
        if holders.is_dead(json.loads(holder)):
            return True
        now = time.monotonic()
        seen, since = self._seen.get(name, (None, now))
        if seen != (holder, beat):
            self._seen[name] = ((holder, beat), now)
            return False
        return now - since >= GRACE

    def beat(self) -> None:
        """Send a heartbeat for the claims of this process."""
        t = self._items.c
        held = (t.token == self.token) & (t.state == "running")
        update = self._sql.update(self._items).where(held).values(beat=t.beat + 1)
        self._transaction(lambda do: do(update))

    def finish(self, item: Item, outcome: Outcome) -> bool:
        """Store the outcome of a run; False, without storing it, if the claim was lost."""
        text = text_of(outcome)
        return self._transaction(
            lambda do: (
                self._settle(do, item, state="done", outcome=text) or self._finished_here(do, item)
            )
        )

    def _finished_here(self, do: Execute, item: Item) -> bool:
        """Whether an earlier attempt, whose answer was lost, finished the run."""
        row = do(self._sql.select(self._items.c.state, self._items.c.token).where(self._item(item)))
        return tuple(row.one()) == ("done", self.token)

    def release(self, item: Item, *, crashed: bool = False) -> bool:
        """Release a run, to be executed again from its beginning."""
        crashes = self._items.c.crashes + int(crashed)
        return self._transaction(
            lambda do: self._settle(do, item, state="waiting", token=None, crashes=crashes)
        )

    def _settle(self, do: Execute, item: Item, **values: Any) -> bool:
        held = self._item(item) & (self._items.c.token == self.token)
        held &= self._items.c.state == "running"
        return bool(do(self._sql.update(self._items).where(held).values(**values)).rowcount)

    def states(self) -> dict[str, str]:
        """State of every run by key: ``waiting``, ``running`` or ``done``."""
        t = self._items.c
        query = self._sql.select(t.key, t.state).where(t.comparison == self.key)
        return dict(map(tuple, self._transaction(lambda do: do(query).all())))

    def outcomes(self, keys: Sequence[str] | None = None) -> dict[str, Outcome]:
        """Outcomes of finished runs by key, of all or of some."""
        t = self._items.c
        return self._outcomes(() if keys is None else (t.key.in_(list(keys)),))

    def _outcomes(self, conditions: Sequence[Any], most: int | None = None) -> dict[str, Outcome]:
        t = self._items.c
        query = self._sql.select(t.key, t.outcome).where(
            t.comparison == self.key, t.state == "done", *conditions
        )
        rows = self._transaction(lambda do: do(query.limit(most)).all())
        return {row.key: read(Outcome, row.outcome, row.key) for row in rows}

    # For the mirror ------------------------------------------------------------------------

    def unmirrored(self, most: int | None = None) -> dict[str, Outcome]:
        """Up to ``most`` finished runs that may be missing in the Optuna studies."""
        return self._outcomes((self._items.c.mirrored == 0,), most)

    def mirrored(self, keys: Sequence[str]) -> None:
        """Record that runs are in their Optuna studies."""
        t = self._items.c
        update = self._sql.update(self._items).where(
            t.comparison == self.key, t.key.in_(list(keys))
        )
        self._transaction(lambda do: do(update.values(mirrored=1)))

    @contextlib.contextmanager
    def lock(self, name: str) -> Generator[bool]:
        """Try to acquire a lock; yields whether it is held. Locks of dead processes are taken."""
        t = self._locks.c
        mine = (t.comparison == self.key) & (t.name == name)
        holder = json.dumps({**holders.me(), "token": uuid.uuid4().hex})

        def acquire(do: Execute) -> bool:
            do(self._insert(self._locks).values(comparison=self.key, name=name, holder="", beat=0))
            before = do(self._sql.select(t.holder, t.beat).where(mine)).one()
            if before.holder == holder:
                return True  # the answer to an earlier attempt was lost
            if before.holder and not self._abandoned(f"lock {name}", before.holder, before.beat):
                return False
            update = self._sql.update(self._locks).where(
                mine, t.holder == before.holder, t.beat == before.beat
            )
            return bool(do(update.values(holder=holder, beat=t.beat + 1)).rowcount)

        won = self._transaction(acquire)
        try:
            yield won
        finally:
            if won:
                update = self._sql.update(self._locks).where(mine, t.holder == holder)
                self._transaction(lambda do: do(update.values(holder="")))

    # Inside --------------------------------------------------------------------------------

    def _tables(self) -> None:
        sql = self._sql
        self._metadata = sql.MetaData()

        def column(name: str, kind: Any, **options: Any) -> Any:
            return sql.Column(name, kind, **options)

        self._plans = sql.Table(
            "anyorder_comparisons",
            self._metadata,
            column("key", sql.String(32), primary_key=True),
            column("schema", sql.Integer, nullable=False),
            column("version", sql.String(64), nullable=False),
            column("plan", sql.Text, nullable=False),
            column("facts", sql.Text, nullable=False),
        )
        self._items = sql.Table(
            "anyorder_items",
            self._metadata,
            column("comparison", sql.String(32), primary_key=True),
            column("key", sql.String(KEY_LENGTH), primary_key=True),
            column("state", sql.String(16), nullable=False),
            column("config", sql.Text),
            column("token", sql.String(32)),
            column("holder", sql.Text),
            column("beat", sql.Integer, nullable=False),
            column("crashes", sql.Integer, nullable=False),
            column("mirrored", sql.Integer, nullable=False),
            column("outcome", sql.Text),  # last: SQLite reads the columns before it faster
        )
        self._locks = sql.Table(
            "anyorder_locks",
            self._metadata,
            column("comparison", sql.String(32), primary_key=True),
            column("name", sql.String(64), primary_key=True),
            column("holder", sql.Text, nullable=False),
            column("beat", sql.Integer, nullable=False),
        )

    @property
    def _mine(self) -> Any:
        return self._plans.c.key == self.key

    def _item(self, item: Item) -> Any:
        return (self._items.c.comparison == self.key) & (self._items.c.key == item.key)

    def _insert(self, table: Any) -> Any:
        """An insertion that ignores existing rows."""
        dialect = require(f"sqlalchemy.dialects.{self._kind}")
        return dialect.insert(table).on_conflict_do_nothing()

    def _transaction(self, work: Callable[[Execute], T]) -> T:
        """Execute ``work`` in a transaction, repeatedly while the server is unreachable.

        After a lost commit ``work`` is executed again, so its effect must not depend on how often.
        """
        attempt = 0
        with self._trouble():
            while True:
                try:
                    with self._engine.begin() as connection:
                        found = work(connection.execute)
                    if self._outage.over():
                        self._seen.clear()  # other processes could not send heartbeats either
                    return found
                except self._sql.exc.DBAPIError as error:
                    if not self.is_lost(error) or not self._outage.goes_on(self._reason(error)):
                        raise
                self.pause(min(PAUSE * 2**attempt, LONGEST_PAUSE))
                attempt += 1

    def is_lost(self, error: Any) -> bool:
        """Whether an error says that the server is, or was just now, unreachable."""
        if self._kind == "sqlite" or not isinstance(error, self._sql.exc.DBAPIError):
            return False
        # Failed connections have no code. 08: connection, 40: conflict of transactions, 53300: too
        # many connections, 57P: the server stops or starts.
        code = getattr(error.orig, "pgcode", None) or ""
        transient = code[:2] in ("", "08", "40") or code == "53300" or code[:3] == "57P"
        named = isinstance(error, (self._sql.exc.OperationalError, self._sql.exc.InterfaceError))
        return error.connection_invalidated or (named and transient)

    def _reason(self, error: Any) -> str:
        return f"the database {self.shown} is unreachable ({_text(error)})"

    @contextlib.contextmanager
    def _trouble(self) -> Generator[None]:
        """Convert database errors to :class:`StorageError` with advice."""
        try:
            yield
        except self._sql.exc.DBAPIError as error:
            raise self.error(error) from error

    def error(self, error: BaseException) -> StorageError:
        """The error to raise for an error of the database."""
        return StorageError(self._advice(_text(error)))

    def _advice(self, text: str) -> str:
        where = self._address.database if self._kind == "sqlite" else self.shown
        if any(word in text for word in ("not a database", "malformed", "corrupt")):
            return (
                f"the database {where} is damaged ({text}). Move it away and run the command again "
                "to start again, or restore a copy of it"
            )
        if "full" in text or "disk I/O" in text:
            return (
                f"the database {where} cannot grow: {text}. Free disk space and run the same "
                "command again; finished runs are kept"
            )
        if "readonly" in text or "unable to open" in text or "permission" in text.lower():
            return f"cannot write the database {where}: {text}. Choose another folder with --out"
        if "locked" in text:
            return (
                f"the database {where} is locked: {text}. Another program uses it, or it is on a "
                "network drive, where SQLite does not work: use --storage postgresql://..."
            )
        if self._outage.given_up:
            return (
                f"the database {where} could not be reached for {self._outage.patience:.0f} s: "
                f"{text}. Finished runs are kept; run the same command again when it is back"
            )
        return f"the database {where} cannot be used: {text}. Finished runs are kept"

    def _quick_check(self) -> None:
        if self._kind != "sqlite":
            return
        with self._engine.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check").scalar_one()
        if found != "ok":
            raise StorageError(self._advice(f"malformed: {found}"))

    def _refuse_long_keys(self, plan: Plan) -> None:
        """Refuse what PostgreSQL would refuse in mid-run; SQLite stores keys of any length."""
        longest = max(items(plan), key=lambda item: len(item.key), default=None)
        if self._kind == "sqlite" or longest is None or len(longest.key) <= KEY_LENGTH:
            return
        name = longest.method
        raise StorageError(
            f"the name {name[:40]}... has {len(name)} characters, which is too long for "
            f"{self.shown}; name the method, such as short={name[:10]}..."
        )

    def _refuse_other_version(self, row: Any) -> None:
        if (row.schema, row.version) != (SCHEMA, anyorder.__version__):
            raise StorageError(
                f"{self.shown} was written by anyorder {row.version} (schema {row.schema}) and "
                f"this is {anyorder.__version__} (schema {SCHEMA}); runs of two versions cannot be "
                "compared. Choose another folder with --out, or continue with that version"
            )

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _text(error: BaseException) -> str:
    """What the database said, on one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())

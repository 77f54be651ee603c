"""The database of a running comparison: no run is lost, and no run is executed twice.

Plan, pilot and every finished run are in the same database as the Optuna studies that mirror them
(:mod:`anyorder.compare.store.mirror`). Optuna stores trials, but has no queue in which another
process can take over the run of a killed one atomically. This is the main table,
``anyorder_items``:

* a run is *claimed* by a conditional update, which exactly one process can win;
* a claim is kept alive by a heartbeat; without one, or if its process is known to be dead, another
  process can take it over by the same kind of update;
* a run is *finished* only by the process that still holds the claim, in the same statement that
  stores its outcome.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyorder
from anyorder.compare.plan.items import Item
from anyorder.compare.plan.plan import Plan, joined
from anyorder.compare.store import holders
from anyorder.compare.store.schema import SCHEMA, Facts, Outcome, read, text_of
from anyorder.errors import AnyOrderError
from anyorder.extras import require

#: Seconds without a heartbeat after which a claim may be taken over, and between two heartbeats.
GRACE, BEAT = 60.0, 5.0
#: Number of attempts while the database is busy or unreachable, and the pause between them.
ATTEMPTS, PAUSE = 4, 1.0


class StorageError(AnyOrderError, OSError):
    """A folder or a database that cannot be used."""


@dataclass(frozen=True)
class Claim:
    """A run that this process has claimed, with its configuration if already known."""

    config: dict[str, Any] | None
    crashes: int


def embedded_url(out: Path) -> str:
    """URL of the SQLite database in the folder of a comparison."""
    return f"sqlite:///{(out / 'compare.db').resolve()}"


class Storage:
    """One comparison in a database.

    Args:
        url: ``sqlite:///file`` or ``postgresql://user@host/database``.

    Raises:
        StorageError: the database is unreachable, damaged or of an unsupported kind.
    """

    def __init__(self, url: str) -> None:
        self._sql: Any = require("sqlalchemy")
        self.token = uuid.uuid4().hex
        self.key = ""
        self._address = self._read(url)
        self._kind = self._address.get_backend_name()
        #: Seconds to wait for another writer (SQLite allows only one).
        self.connect_args: dict[str, Any] = {"timeout": 60} if self._kind == "sqlite" else {}
        self._engine = self._sql.create_engine(
            self._address, pool_pre_ping=True, connect_args=self.connect_args
        )
        self._tables()
        with self.trouble():
            self._create()
            self._quick_check()

    def _create(self) -> None:
        """Create missing tables; other processes may do the same concurrently."""
        with self._engine.begin() as connection:
            if self._kind == "postgresql":  # its IF NOT EXISTS is not atomic
                connection.execute(self._sql.text("SELECT pg_advisory_xact_lock(20240612)"))
            for table in self._metadata.sorted_tables:
                connection.execute(self._sql.schema.CreateTable(table, if_not_exists=True))

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
            StorageError: the existing comparison was written by another version.
        """
        # A file contains one comparison; a server contains many, distinguished by their plans.
        self.key = "only" if self._kind == "sqlite" else plan.fingerprint
        with self._transaction() as do:
            do(
                self._insert(self._plans).values(
                    key=self.key,
                    schema=SCHEMA,
                    version=anyorder.__version__,
                    plan=text_of(plan),
                    facts="",
                )
            )
        while True:
            with self._transaction() as do:
                row = do(self._sql.select(self._plans).where(self._mine)).one()
            self._refuse_other_version(row)
            stored = read(Plan, row.plan, "plan")
            agreed = joined(stored, plan, extend=extend)
            if agreed == stored:
                return agreed
            with self._transaction() as do:
                update = self._sql.update(self._plans).where(
                    self._mine, self._plans.c.plan == row.plan
                )
                do(update.values(plan=text_of(agreed)))

    def facts(self) -> Facts | None:
        """Results of the pilot; None until :meth:`keep_facts`."""
        with self._transaction() as do:
            text = do(self._sql.select(self._plans.c.facts).where(self._mine)).scalar_one()
        return read(Facts, text, "facts") if text else None

    def keep_facts(self, facts: Facts) -> Facts:
        """Store results of the pilot unless another process did; return the stored ones."""
        with self._transaction() as do:
            do(
                self._sql.update(self._plans)
                .where(self._mine, self._plans.c.facts == "")
                .values(facts=text_of(facts))
            )
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
                "crashes": 0,
                "mirrored": 0,
            }
            for item, config in items
        ]
        with self._transaction() as do:
            do(self._insert(self._items), rows)

    # Runs ----------------------------------------------------------------------------------

    def claim(self, item: Item) -> Claim | None:
        """Try to claim a run; None if another process has claimed or finished it."""
        t, mine = self._items.c, self._item(item)
        with self._transaction() as do:
            found = do(self._sql.select(t.state, t.holder).where(mine)).one()
        stale = t.beat < self._now() - GRACE
        if found.state == "running" and holders.is_dead(json.loads(found.holder)):
            stale = t.holder == found.holder  # unless another process has taken it over since
        free = (t.state == "waiting") | ((t.state == "running") & stale)
        holder = json.dumps({**holders.me(), "token": self.token})
        with self._transaction() as do:
            won = do(
                self._sql.update(self._items)
                .where(mine, free)
                .values(state="running", holder=holder, token=self.token, beat=self._now())
            ).rowcount
            if not won:
                return None
            row = do(self._sql.select(t.config, t.crashes).where(mine)).one()
        config = None if row.config is None else json.loads(row.config)
        return Claim(config, row.crashes)

    def beat(self) -> None:
        """Send a heartbeat for the claims of this process."""
        held = (self._items.c.token == self.token) & (self._items.c.state == "running")
        with self._transaction() as do:
            do(self._sql.update(self._items).where(held).values(beat=self._now()))

    def finish(self, item: Item, outcome: Outcome) -> bool:
        """Store the outcome of a run; False, without storing it, if the claim was lost."""
        return self._settle(item, state="done", outcome=text_of(outcome))

    def release(self, item: Item, *, crashed: bool = False) -> bool:
        """Release a run, to be executed again from its beginning."""
        crashes = self._items.c.crashes + int(crashed)
        return self._settle(item, state="waiting", crashes=crashes)

    def _settle(self, item: Item, **values: Any) -> bool:
        held = self._item(item) & (self._items.c.token == self.token)
        held &= self._items.c.state == "running"
        with self._transaction() as do:
            update = self._sql.update(self._items).where(held)
            return bool(do(update.values(token=None, **values)).rowcount)

    def states(self) -> dict[str, str]:
        """State of every run by key: ``waiting``, ``running`` or ``done``."""
        t = self._items.c
        with self._transaction() as do:
            rows = do(self._sql.select(t.key, t.state).where(t.comparison == self.key))
            return {row.key: row.state for row in rows}

    def outcomes(self, keys: Sequence[str] | None = None) -> dict[str, Outcome]:
        """Outcomes of finished runs by key, of all or of some."""
        t = self._items.c
        query = self._sql.select(t.key, t.outcome).where(
            t.comparison == self.key, t.state == "done"
        )
        if keys is not None:
            query = query.where(t.key.in_(list(keys)))
        with self._transaction() as do:
            rows = do(query).all()
        return {row.key: read(Outcome, row.outcome, row.key) for row in rows}

    # For the mirror ------------------------------------------------------------------------

    def unmirrored(self, most: int | None = None) -> dict[str, Outcome]:
        """Up to ``most`` finished runs that may be missing in the Optuna studies."""
        t = self._items.c
        query = (
            self._sql.select(t.key, t.outcome)
            .where(t.comparison == self.key, t.state == "done", t.mirrored == 0)
            .limit(most)
        )
        with self._transaction() as do:
            rows = do(query).all()
        return {row.key: read(Outcome, row.outcome, row.key) for row in rows}

    def mirrored(self, key: str) -> None:
        """Record that a run is in its Optuna study."""
        t = self._items.c
        with self._transaction() as do:
            update = self._sql.update(self._items).where(t.comparison == self.key, t.key == key)
            do(update.values(mirrored=1))

    @contextlib.contextmanager
    def lock(self, name: str) -> Generator[bool]:
        """Try to acquire a lock; yields whether it is held. Locks of dead processes are taken."""
        t = self._locks.c
        mine = (t.comparison == self.key) & (t.name == name)
        holder = json.dumps({**holders.me(), "token": self.token})
        with self._transaction() as do:
            do(self._insert(self._locks).values(comparison=self.key, name=name, holder="", beat=0))
            before = do(self._sql.select(t.holder).where(mine)).scalar_one()
        free = (t.holder == "") | (t.beat < self._now() - GRACE)
        if before and holders.is_dead(json.loads(before)):
            free = free | (t.holder == before)
        with self._transaction() as do:
            update = self._sql.update(self._locks).where(mine, free)
            won = bool(do(update.values(holder=holder, beat=self._now())).rowcount)
        try:
            yield won
        finally:
            if won:
                with self._transaction() as do:
                    update = self._sql.update(self._locks).where(mine, t.holder == holder)
                    do(update.values(holder=""))

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
            column("key", sql.String(512), primary_key=True),
            column("state", sql.String(16), nullable=False),
            column("config", sql.Text),
            column("token", sql.String(32)),
            column("holder", sql.Text),
            column("beat", sql.Float(53)),
            column("crashes", sql.Integer, nullable=False),
            column("outcome", sql.Text),
            column("mirrored", sql.Integer, nullable=False),
        )
        self._locks = sql.Table(
            "anyorder_locks",
            self._metadata,
            column("comparison", sql.String(32), primary_key=True),
            column("name", sql.String(64), primary_key=True),
            column("holder", sql.Text, nullable=False),
            column("beat", sql.Float(53), nullable=False),
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

    def _now(self) -> Any:
        """Seconds by the clock of the database, which all machines share."""
        if self._kind == "sqlite":
            return self._sql.literal_column("(julianday('now') - 2440587.5) * 86400.0")
        return self._sql.literal_column("extract(epoch from clock_timestamp())")

    @contextlib.contextmanager
    def _transaction(self) -> Generator[Callable[..., Any]]:
        with self.trouble(), self._connection() as connection:
            yield connection.execute

    @contextlib.contextmanager
    def _connection(self) -> Generator[Any]:
        """A connection in a transaction."""
        with self._connect() as connection, connection.begin():
            yield connection

    def _connect(self) -> Any:
        """A connection, with retries if the server is unreachable."""
        attempts = 1 if self._kind == "sqlite" else ATTEMPTS
        for attempt in range(attempts - 1):
            with contextlib.suppress(self._sql.exc.OperationalError):
                return self._engine.connect()
            time.sleep(PAUSE * 2**attempt)
        return self._engine.connect()

    @contextlib.contextmanager
    def trouble(self) -> Generator[None]:
        """Convert database errors to :class:`StorageError` with advice."""
        try:
            yield
        except self._sql.exc.DatabaseError as error:
            text = " ".join(str(error.orig).split())
            raise StorageError(self._advice(text)) from error

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
        return f"the database {where} cannot be used: {text}. Finished runs are kept"

    def _quick_check(self) -> None:
        if self._kind != "sqlite":
            return
        with self._engine.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check").scalar_one()
        if found != "ok":
            raise StorageError(self._advice(f"malformed: {found}"))

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

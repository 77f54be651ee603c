"""The site's database: votes, subscribers, their tokens, and deliveries of digests.

It is embedded SQLite, or PostgreSQL if a URL is set. Addresses are stored in one table only; tokens
are stored as hashes; errors never contain a statement's parameters.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from anyorder.errors import AnyOrderError
from anyorder_papers.store import home

SCHEMA = "1"
BUSY_SECONDS = 10

metadata = sa.MetaData()

meta = sa.Table(
    "anyorder_meta",
    metadata,
    sa.Column("key", sa.String(40), primary_key=True),
    sa.Column("value", sa.String(200), nullable=False),
)
votes = sa.Table(
    "anyorder_votes",
    metadata,
    sa.Column("paper", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("visitor", sa.String(64), primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
)
# One vote per paper and network: `network` is a keyed hash that differs for every paper. #
# Withdrawing a vote deletes its row.
vote_networks = sa.Table(
    "anyorder_vote_networks",
    metadata,
    sa.Column("paper", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("network", sa.String(64), primary_key=True),
    sa.Column("visitor", sa.String(64), nullable=False),
    sa.ForeignKeyConstraint(
        ["paper", "visitor"], [votes.c.paper, votes.c.visitor], ondelete="CASCADE"
    ),
)
# `address_key` is what makes an address unique. `cursor` is the last item (see `items`) that a
# digest has covered; it is set when the address is confirmed.
subscribers = sa.Table(
    "anyorder_subscribers",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("address", sa.String(254), nullable=False),
    sa.Column("address_key", sa.String(254), nullable=False, unique=True),
    sa.Column("frequency", sa.String(8), nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("confirmed", sa.BigInteger),
    sa.Column("cursor", sa.Integer, nullable=False),
    sa.Column("last_sent", sa.BigInteger),
)
tokens = sa.Table(
    "anyorder_tokens",
    metadata,
    sa.Column("hash", sa.String(64), primary_key=True),
    sa.Column("purpose", sa.String(12), nullable=False),
    sa.Column(
        "subscriber",
        sa.Integer,
        sa.ForeignKey(subscribers.c.id, ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    sa.Column("frequency", sa.String(8), nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger),
)
# Everything that a digest can announce, in the order in which this site first saw it.
items = sa.Table(
    "anyorder_items",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("key", sa.String(120), nullable=False, unique=True),
    sa.Column("seen", sa.BigInteger, nullable=False),
)
# One row per digest, written before the mail is sent: it contains `before < seq <= after`.
deliveries = sa.Table(
    "anyorder_deliveries",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column(
        "subscriber",
        sa.Integer,
        sa.ForeignKey(subscribers.c.id, ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    sa.Column("before", sa.Integer, nullable=False),
    sa.Column("after", sa.Integer, nullable=False),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("subscriber", "before"),
)


class DatabaseError(AnyOrderError, RuntimeError):
    """The database cannot be opened, read or written."""


def default_url() -> str:
    """URL of the embedded database, a file in the user's data folder."""
    return f"sqlite:///{home() / 'papers.sqlite3'}"


class Database:
    """A database with its schema.

    Args:
        url: ``sqlite:///FILE`` or ``postgresql://USER:PASSWORD@HOST/NAME``; by default the
            embedded file of :func:`default_url`. Its folder is created.

    Raises:
        DatabaseError: If the database is corrupt, cannot be written, was written by another
            version, or its driver is missing.
    """

    def __init__(self, url: str | None = None) -> None:
        self.engine = _engine(url or default_url())
        self.place = self.engine.url.render_as_string(hide_password=True)
        try:
            _create(self.engine)
        except (SQLAlchemyError, OSError) as error:
            raise DatabaseError(self._explain(error)) from None
        with self.read() as connection:
            found = connection.scalar(sa.select(meta.c.value).where(meta.c.key == "schema"))
        if found != SCHEMA:
            raise DatabaseError(
                f"the database {self.place} has schema version {found}, this program needs "
                f"{SCHEMA}; use the version that wrote it, or another database (--database)"
            )

    @contextmanager
    def read(self) -> Generator[sa.Connection]:
        """Open a read-only connection."""
        with self._connection(write=False) as connection:
            yield connection

    @contextmanager
    def write(self) -> Generator[sa.Connection]:
        """Open a connection with a transaction."""
        with self._connection(write=True) as connection:
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextmanager
    def _connection(self, *, write: bool) -> Generator[sa.Connection]:
        try:
            with self.engine.execution_options(write=write).begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            # `from None`: the driver's message may contain a row's values.
            raise DatabaseError(self._explain(error)) from None

    def _explain(self, error: Exception) -> str:
        cause = getattr(error, "orig", None) or error
        if isinstance(cause, sqlite3.Error):
            name = getattr(cause, "sqlite_errorname", type(cause).__name__)
            if name in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
                return (
                    f"the database {self.place} is damaged or not a database; move the file away "
                    "(a new one is created) or restore a backup"
                )
            return (
                f"cannot use the database {self.place} ({name}); check that its folder exists, "
                "is writable and has free space, or choose another with --database"
            )
        if isinstance(cause, OSError):
            return (
                f"cannot use the database {self.place} ({cause.strerror}); check that its folder "
                "can be created and written, or choose another with --database"
            )
        return (
            f"cannot use the database {self.place} ({type(cause).__name__}); check that the "
            "server runs and that the URL, user and password are right"
        )


def insert_new(connection: sa.Connection, table: sa.Table, values: Mapping[str, Any]) -> bool:
    """Insert a row unless one with the same key exists; return whether it was inserted."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table).values(**values).on_conflict_do_nothing()
    return connection.execute(statement).rowcount == 1


def _engine(text: str) -> sa.Engine:
    # Never include the text in an error: it may contain a password.
    try:
        url = sa.make_url(text)
    except ArgumentError:
        raise DatabaseError(
            "expected a database URL such as sqlite:///papers.sqlite3 or "
            "postgresql://user:password@host/name"
        ) from None
    backend = url.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise DatabaseError(f"expected a sqlite:// or postgresql:// URL, got {backend}://")
    if backend == "sqlite":
        return _sqlite_engine(url)
    if url.drivername == "postgresql":
        # The driver of our extra, whatever SQLAlchemy's default is.
        url = url.set(drivername="postgresql+psycopg2")
    try:
        return sa.create_engine(url, hide_parameters=True, pool_pre_ping=True)
    except (ImportError, NoSuchModuleError) as error:
        raise DatabaseError(
            f"the driver for {url.drivername}:// is not installed ({error}); "
            "pip install 'anyorder[postgres]'"
        ) from None


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise DatabaseError(
            "expected a file, such as sqlite:///papers.sqlite3: a database in memory would lose "
            "its subscribers"
        )
    engine = sa.create_engine(url, hide_parameters=True, connect_args={"timeout": BUSY_SECONDS})

    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        # We begin transactions ourselves (below): a writer waits for the lock at the beginning, #
        # instead of failing when a read is followed by a write.
        connection.isolation_level = None
        _write_ahead(connection)
        for pragma in ("foreign_keys = ON", "synchronous = FULL"):
            connection.execute(f"PRAGMA {pragma}")

    def begin(connection: sa.Connection) -> None:
        write = connection.get_execution_options().get("write", True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Allow readers concurrent with a writer.

    The first connection to a file changes its journal mode. Others that connect meanwhile get a
    busy error immediately, since the connection's timeout does not apply.
    """
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _create(engine: sa.Engine) -> None:
    """Create the schema if needed, and check that the database is writable."""
    if engine.dialect.name == "sqlite":
        # A path may be a URI (file:/path?mode=ro).
        file = Path(str(engine.url.database).removeprefix("file:").partition("?")[0])
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # It contains addresses, so only its owner may read it.
        file.touch(mode=0o600)
    with engine.execution_options(write=True).begin() as connection:
        if connection.dialect.name == "postgresql":
            # Two servers may start at the same time, and CREATE TABLE IF NOT EXISTS can still
            # conflict.
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(20240607)"))
        metadata.create_all(connection)
        insert_new(connection, meta, {"key": "schema", "value": SCHEMA})
        connection.execute(sa.update(meta).values(value=meta.c.value))

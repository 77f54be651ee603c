"""The database: made once, wherever it lies, and clear when it cannot be used."""

from __future__ import annotations

import stat
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from anyorder_papers.database import (
    Database,
    DatabaseError,
    default_url,
    insert_new,
    meta,
    subscribers,
    votes,
)


def test_schema_is_made_once_and_what_is_stored_stays(any_database_url: str) -> None:
    first = Database(any_database_url)
    with first.write() as connection:
        assert insert_new(connection, votes, {"paper": 1, "visitor": "v", "at": 5})
    first.close()
    again = Database(any_database_url)
    with again.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(votes)) == 1
    again.close()


def test_insert_new_tells_whether_the_row_was_new(any_database: Database) -> None:
    with any_database.write() as connection:
        row = {"paper": 1, "visitor": "v", "at": 5}
        assert insert_new(connection, votes, row)
        assert not insert_new(connection, votes, {**row, "at": 6})
        assert connection.scalar(sa.select(votes.c.at)) == 5


def test_a_transaction_happens_whole_or_not_at_all(any_database: Database) -> None:
    def fail() -> None:
        with any_database.write() as connection:
            insert_new(connection, votes, {"paper": 1, "visitor": "v", "at": 5})
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    with any_database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(votes)) == 0


def test_many_servers_may_start_at_once(any_database_url: str, at_once: Any) -> None:
    assert at_once(lambda: Database(any_database_url).close()) == []


def test_writers_wait_for_one_another(any_database: Database) -> None:
    def vote(visitor: int) -> None:
        for paper in range(5):
            with any_database.write() as connection:
                insert_new(connection, votes, {"paper": paper, "visitor": str(visitor), "at": 1})

    threads = [threading.Thread(target=vote, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with any_database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(votes)) == 40


def test_default_lies_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYORDER_HOME", str(tmp_path / "home"))
    assert default_url() == f"sqlite:///{tmp_path / 'home' / 'papers.sqlite3'}"
    Database().close()
    file = tmp_path / "home" / "papers.sqlite3"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "broken.sqlite3"
    file.write_bytes(b"this was never a database" * 100)
    with pytest.raises(DatabaseError, match=r"broken\.sqlite3 is damaged .* move the file away"):
        Database(f"sqlite:///{file}")


def test_damage_below_the_header_is_found_out(tmp_path: Path) -> None:
    file = tmp_path / "broken.sqlite3"
    Database(f"sqlite:///{file}").close()
    data = bytearray(file.read_bytes())
    data[100:2000] = b"\xff" * 1900
    file.write_bytes(data)
    with pytest.raises(DatabaseError, match="is damaged"):
        Database(f"sqlite:///{file}")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseError, match=r"cannot use the database .*file/papers\.sqlite3"):
        Database(f"sqlite:///{tmp_path / 'file' / 'papers.sqlite3'}")
    with pytest.raises(DatabaseError, match="cannot use the database"):
        Database(f"sqlite:///{tmp_path}")


def test_a_read_only_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "papers.sqlite3"
    Database(f"sqlite:///{file}").close()
    with pytest.raises(DatabaseError, match="SQLITE_READONLY"):
        Database(f"sqlite:///file:{file}?mode=ro&uri=true")


def test_another_schema_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'papers.sqlite3'}"
    database = Database(url)
    with database.write() as connection:
        connection.execute(sa.update(meta).where(meta.c.key == "schema").values(value="99"))
    database.close()
    with pytest.raises(DatabaseError, match="schema version 99, this program needs 1"):
        Database(url)


def test_errors_never_hold_what_was_to_be_stored(database: Database) -> None:
    row = {"address": "a@b.example", "address_key": "a@b.example", "frequency": "daily"}
    with pytest.raises(DatabaseError) as caught, database.write() as connection:
        connection.execute(sa.insert(subscribers).values(**row, created=None, cursor=0))
    assert "b.example" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "expected a database URL"),
        ("mysql://u:secret@host/db", "expected a sqlite:// or postgresql:// URL, got mysql://"),
        ("sqlite://", "would lose its subscribers"),
        ("postgresql+nodriver://u:secret@h/db", r"pip install 'anyorder\[postgres\]'"),
    ],
)
def test_other_urls_are_explained_without_their_password(url: str, message: str) -> None:
    with pytest.raises(DatabaseError, match=message) as caught:
        Database(url)
    assert "secret" not in str(caught.value)


def test_a_server_that_does_not_answer_is_explained_without_the_password() -> None:
    pytest.importorskip("psycopg2")
    with pytest.raises(DatabaseError, match="check that the server runs") as caught:
        Database("postgresql://user:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)

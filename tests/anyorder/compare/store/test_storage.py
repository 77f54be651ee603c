"""The queue of runs: won by one, kept by heartbeats, taken over when its holder is gone."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from example_results import facts, run
from scale_out import Server

from anyorder.compare.plan.items import Item, items
from anyorder.compare.plan.plan import Plan, PlanError
from anyorder.compare.store import storage as storing
from anyorder.compare.store.holders import me
from anyorder.compare.store.schema import Outcome, ResultsError
from anyorder.compare.store.storage import Claim, Storage, StorageError, embedded_url


@pytest.fixture
def url(tmp_path: Path) -> str:
    return embedded_url(tmp_path)


@pytest.fixture
def opened(url: str, small_plan: Plan) -> Any:
    """A storage with all runs of the small plan in it."""
    storage = opening(url, small_plan)
    yield storage
    storage.close()


def opening(url: str, plan: Plan) -> Storage:
    storage = Storage(url)
    storage.begin(plan)
    storage.add([(item, {"lr": 0.1} if item.kind == "tune" else None) for item in items(plan)])
    return storage


def edit(url: str, statement: str, **values: Any) -> None:
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(statement), values)
    engine.dispose()


def a_dead_process() -> dict[str, Any]:
    """What a process that has ended would have left as its holder."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    left = {**me(), "pid": process.pid, "started": Path(f"/proc/{process.pid}/stat").read_text()}
    left["started"] = left["started"].rpartition(")")[2].split()[19]
    process.communicate(b"\n")
    return left


ITEM = Item.trial("a", 0, 0)
GOOD, LATE = (Outcome({}, {}, run(0, [loss]), "m") for loss in (0.1, 0.9))


def changed(plan: Plan, **settings: Any) -> Plan:
    return replace(plan, settings=replace(plan.settings, **settings))


def test_a_run_from_claim_to_outcome(opened: Storage) -> None:
    assert opened.states()[ITEM.key] == "waiting"
    assert opened.claim(ITEM) == Claim({"lr": 0.1}, 0)
    assert opened.states()[ITEM.key] == "running"
    assert opened.finish(ITEM, GOOD)
    assert opened.states()[ITEM.key] == "done"
    assert opened.outcomes() == {ITEM.key: GOOD}
    assert opened.outcomes([ITEM.key]) == {ITEM.key: GOOD}
    assert opened.outcomes(["other"]) == {}
    assert opened.claim(ITEM) is None


def test_adding_again_changes_nothing(opened: Storage, small_plan: Plan) -> None:
    opened.claim(ITEM)
    opened.finish(ITEM, GOOD)
    opened.add([(item, {"lr": 9}) for item in items(small_plan)])
    assert opened.states()[ITEM.key] == "done"
    assert opened.claim(Item.trial("a", 0, 1)) == Claim({"lr": 0.1}, 0)


def test_one_of_many_wins(url: str, small_plan: Plan) -> None:
    storages = [opening(url, small_plan) for _ in range(6)]
    barrier, won = threading.Barrier(6), []

    def race(storage: Storage) -> None:
        barrier.wait()
        won.extend(item.key for item in items(small_plan) if storage.claim(item) is not None)

    threads = [threading.Thread(target=race, args=(storage,)) for storage in storages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == sorted(item.key for item in items(small_plan))
    for storage in storages:
        storage.close()


def test_a_living_claim_is_left_alone(opened: Storage, url: str) -> None:
    opened.claim(ITEM)
    other = Storage(url)
    other.key = opened.key
    assert other.claim(ITEM) is None
    other.close()


class Clock:
    """A monotonic clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(storing, "time", made)
    return made


def test_a_quiet_claim_is_taken_over_and_the_late_result_does_not_count(
    opened: Storage, url: str, small_plan: Plan, clock: Clock
) -> None:
    opened.claim(ITEM)
    other = opening(url, small_plan)
    assert other.claim(ITEM) is None  # from here on it watches
    clock.now += storing.GRACE - 1
    assert other.claim(ITEM) is None
    clock.now += 1
    assert other.claim(ITEM) is not None
    assert not opened.finish(ITEM, LATE)
    assert not opened.release(ITEM)
    assert other.finish(ITEM, GOOD)
    assert opened.outcomes()[ITEM.key] == GOOD
    other.close()


def test_a_heartbeat_keeps_a_claim(
    opened: Storage, url: str, small_plan: Plan, clock: Clock
) -> None:
    opened.claim(ITEM)
    other = opening(url, small_plan)
    for _ in range(3):
        assert other.claim(ITEM) is None
        clock.now += storing.GRACE
        opened.beat()
    other.close()


def test_a_newcomer_watches_before_it_takes_over(
    opened: Storage, url: str, small_plan: Plan, clock: Clock
) -> None:
    """However old a heartbeat is, and whatever the clocks of two machines say."""
    opened.claim(ITEM)
    clock.now += 1e9
    other = opening(url, small_plan)
    assert other.claim(ITEM) is None
    clock.now -= 2e9  # another machine counts from another moment
    newcomer = opening(url, small_plan)
    assert newcomer.claim(ITEM) is None
    for storage in (other, newcomer):
        storage.close()


class Twice(Storage):
    """Executes every transaction again, as after a commit whose answer was lost."""

    def _transaction(self, work: Any) -> Any:
        super()._transaction(work)
        return super()._transaction(work)


def test_transactions_may_be_executed_twice(url: str, small_plan: Plan) -> None:
    storage = Twice(url)
    assert storage.begin(small_plan) == small_plan
    storage.add([(item, {"lr": 0.1}) for item in items(small_plan)])
    assert storage.keep_facts(facts(name="a")) == facts(name="a")
    assert storage.claim(ITEM) == Claim({"lr": 0.1}, 0)
    storage.release(ITEM, crashed=True)
    assert storage.claim(ITEM) == Claim({"lr": 0.1}, 1)
    storage.beat()
    assert storage.finish(ITEM, GOOD)
    assert storage.claim(ITEM) is None
    with storage.lock("x") as held:
        assert held
    with storage.lock("x") as held:
        assert held
    storage.mirrored([ITEM.key])
    assert storage.unmirrored() == {}
    storage.close()


def test_a_claim_of_a_dead_process_is_taken_over_at_once(
    opened: Storage, url: str, small_plan: Plan
) -> None:
    opened.claim(ITEM)
    holder = json.dumps({**a_dead_process(), "token": "gone"})
    edit(
        url,
        "UPDATE anyorder_items SET token = 'gone', holder = :h WHERE state = 'running'",
        h=holder,
    )
    other = opening(url, small_plan)
    assert other.claim(ITEM) is not None
    other.close()


def test_a_released_run_waits_and_counts_crashes(opened: Storage) -> None:
    opened.claim(ITEM)
    assert opened.release(ITEM)
    assert opened.claim(ITEM) == Claim({"lr": 0.1}, 0)
    opened.release(ITEM, crashed=True)
    assert opened.claim(ITEM) == Claim({"lr": 0.1}, 1)


def test_facts_are_kept_by_the_first(opened: Storage) -> None:
    assert opened.facts() is None
    assert opened.keep_facts(facts(name="a")) == facts(name="a")
    assert opened.keep_facts(facts(name="b")) == facts(name="a")


def test_another_plan_in_the_same_file_is_refused(
    url: str, small_plan: Plan, opened: Storage
) -> None:
    with pytest.raises(PlanError, match="budget: '20grads' there, '9s' now"):
        Storage(url).begin(changed(small_plan, budget="9s"))
    assert opened.begin(changed(small_plan, seeds=5), extend=True).settings.seeds == 5
    assert Storage(url).begin(small_plan).settings.seeds == 5


def test_another_version_is_refused(url: str, small_plan: Plan, opened: Storage) -> None:
    edit(url, "UPDATE anyorder_comparisons SET version = '0.0.1'")
    with pytest.raises(StorageError, match=r"written by anyorder 0\.0\.1"):
        Storage(url).begin(small_plan)


def test_a_damaged_outcome_is_named_with_its_place(opened: Storage, url: str) -> None:
    opened.claim(ITEM)
    opened.finish(ITEM, GOOD)
    edit(url, "UPDATE anyorder_items SET outcome = '{}' WHERE state = 'done'")
    with pytest.raises(ResultsError, match="tune/a/0/0.config is missing"):
        opened.outcomes()


def test_a_damaged_file_is_named_with_the_way_out(
    tmp_path: Path, url: str, small_plan: Plan
) -> None:
    path = tmp_path / "compare.db"
    path.write_bytes(b"no database at all " * 99)
    with pytest.raises(StorageError, match=r"compare\.db is damaged .* Move it away"):
        Storage(url)
    path.unlink()
    opening(url, small_plan).close()
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StorageError, match="is damaged"):
        opening(url, small_plan)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write the database .* --out"):
        Storage(embedded_url(tmp_path / "file"))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense", "cannot read the storage 'nonsense'"),
        ("oracle://host/x", "use sqlite or postgresql"),
        (
            "postgresql://u:secret@127.0.0.1:1/x",
            r"u:\*\*\*@127\.0\.0\.1:1/x could not be reached for 0 s",
        ),
    ],
)
def test_addresses_that_cannot_be_used(
    url: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "START_PATIENCE", 0.0)
    with pytest.raises(StorageError, match=says) as caught:
        Storage(url)
    assert "secret" not in str(caught.value)


def test_a_lock_is_held_by_one_and_inherited_from_the_dead(
    opened: Storage, url: str, small_plan: Plan
) -> None:
    other = opening(url, small_plan)
    with opened.lock("x") as first:
        assert first
        with other.lock("x") as second:
            assert not second
        with other.lock("y") as apart:
            assert apart
    with other.lock("x") as later:
        assert later
    dead = json.dumps({**a_dead_process(), "token": "gone"})
    edit(url, "UPDATE anyorder_locks SET holder = :h WHERE name = 'x'", h=dead)
    with opened.lock("x") as inherited:
        assert inherited
    other.close()


def test_what_is_mirrored_is_remembered(opened: Storage) -> None:
    opened.claim(ITEM)
    assert opened.unmirrored() == {}
    opened.finish(ITEM, GOOD)
    assert opened.unmirrored() == {ITEM.key: GOOD}
    opened.mirrored([ITEM.key])
    assert opened.unmirrored() == {}


def test_numbers_that_json_has_no_word_for_are_refused(opened: Storage) -> None:
    opened.claim(ITEM)
    with pytest.raises(ValueError, match="Out of range float"):
        opened.finish(ITEM, replace(GOOD, config={"lr": float("nan")}))


def test_many_may_start_at_once(tmp_path: Path, at_once: Any) -> None:
    for name in "abc":
        url = f"sqlite:///{tmp_path}/{name}.sqlite3"
        assert at_once(lambda url=url: Storage(url).close()) == []


@pytest.mark.slow
def test_many_may_start_at_once_on_a_server(postgres: str, at_once: Any) -> None:
    once = Storage(postgres)
    once.close()
    for _ in range(3):
        for table in reversed(once._metadata.sorted_tables):
            edit(once.url, f"DROP TABLE {table.name}")
        assert at_once(lambda: Storage(postgres).close()) == []


@pytest.mark.slow
def test_the_same_on_a_server(
    postgres: str, small_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claim, heartbeat, takeover, lock, and several comparisons in one database."""
    first, second = opening(postgres, small_plan), opening(postgres, small_plan)
    assert first.claim(ITEM) == Claim({"lr": 0.1}, 0)
    assert second.claim(ITEM) is None
    monkeypatch.setattr(storing, "GRACE", 0.0)
    assert second.claim(ITEM) is not None
    monkeypatch.undo()
    second.beat()
    assert not first.finish(ITEM, LATE)
    assert second.finish(ITEM, GOOD)
    assert first.outcomes() == {ITEM.key: GOOD}
    with first.lock("x") as one, second.lock("x") as two:
        assert (one, two) == (True, False)
    other = opening(postgres, changed(small_plan, budget="9s"))
    assert other.outcomes() == {}
    assert first.keep_facts(facts()) == second.facts()
    for storage in (first, second, other):
        storage.close()


@pytest.mark.slow
def test_a_server_that_restarts(server: Server, small_plan: Plan) -> None:
    """Whatever is to be stored meanwhile is stored when the server is back; both sides say so."""
    said: queue.Queue[str] = queue.Queue()
    storage = Storage(server.url(), say=said.put)
    storage.begin(small_plan)
    storage.add([(item, None) for item in items(small_plan)])
    storage.claim(ITEM)
    server.stop()
    thread = threading.Thread(target=storage.finish, args=(ITEM, GOOD))
    thread.start()
    assert re.fullmatch(r"the database .* is unreachable \(.*\); trying again for .* s", said.get())
    server.start()
    thread.join()
    assert said.get() == "the database is reachable again; going on"
    assert storage.outcomes() == {ITEM.key: GOOD}
    storage.close()


@pytest.mark.slow
def test_an_outage_ages_no_claim(
    server: Server, small_plan: Plan, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one could not reach the server either, so it is watched from the beginning."""
    first, second = opening(server.url(), small_plan), opening(server.url(), small_plan)
    second.pause = lambda seconds: server.start()
    item = Item.trial("a", 0, 1)
    assert first.claim(item) is not None
    assert second.claim(item) is None
    server.stop()
    second.states()
    clock.now += storing.GRACE
    assert second.claim(item) is None
    clock.now += storing.GRACE
    assert second.claim(item) is not None
    for storage in (first, second):
        storage.close()


@pytest.mark.slow
def test_waiting_ends(server: Server, small_plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some time by itself, and at once if the user interrupts it."""
    storage = opening(server.url(), small_plan)

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    server.stop()
    storage.pause = interrupted
    with pytest.raises(KeyboardInterrupt):
        storage.states()
    storage._outage.patience = 0.0
    for _ in range(2):  # what is done after that does not wait again
        with pytest.raises(StorageError, match="could not be reached.*the same command again"):
            storage.states()
    server.start()
    later = opening(server.url(), small_plan)
    assert set(later.states().values()) <= {"waiting", "running", "done"}
    for each in (storage, later):
        each.close()


def _named(plan: Plan, length: int) -> Plan:
    return replace(plan, methods=[replace(each, name=each.name * length) for each in plan.methods])


def test_names_that_are_too_long_for_a_server_are_refused_before_any_run(
    postgres: str, small_plan: Plan
) -> None:
    long = _named(replace(small_plan, source="long names"), 600)
    storage = Storage(postgres)
    with pytest.raises(
        StorageError, match=r"the name a{40}\.\.\. has 600 characters.* short=a{10}"
    ):
        storage.begin(long)
    storage.key = long.fingerprint
    assert storage.states() == {}
    storage.close()
    kept = opening(postgres, _named(replace(small_plan, source="shorter names"), 480))
    item = Item.from_key(next(iter(kept.states())))
    assert kept.claim(item) is not None
    kept.close()


def test_a_file_stores_keys_of_any_length(url: str, small_plan: Plan) -> None:
    storage = opening(url, _named(small_plan, 600))
    item = Item.from_key(next(iter(storage.states())))
    assert len(item.key) > 600
    assert storage.claim(item) is not None
    storage.close()

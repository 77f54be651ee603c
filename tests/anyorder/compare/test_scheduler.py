"""Order, retries, takeovers and interruptions, with workers that only pretend."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from example_results import facts, point, run

from anyorder.compare import scheduler
from anyorder.compare.plan.entrants import resolve_all
from anyorder.compare.plan.items import Item, Task, items
from anyorder.compare.plan.plan import Entry, Plan
from anyorder.compare.plan.settings import Settings
from anyorder.compare.progress import Silent
from anyorder.compare.run.pool import Event
from anyorder.compare.run.records import Final, failed_run
from anyorder.compare.scheduler import Interrupted, Keeper, Scheduler, interrupts
from anyorder.compare.store import results
from anyorder.compare.store.schema import Outcome
from anyorder.compare.store.storage import Storage, StorageError, embedded_url

Answer = Callable[[str, Task], list[Event]]


def good(key: str, task: Task, metric: float = 1.0) -> list[Event]:
    one = point(val_loss=metric, metric=metric, seconds=0.1)
    record = replace(run(task.seed, []), config=task.config, curve=[one])
    return [
        Event("point", key, one),
        Event("done", key, replace(record, final=Final(metric, metric))),
    ]


class Pretending:
    """A pool whose workers answer at once, as told."""

    size = 1

    def __init__(self, answer: Answer = good) -> None:
        self.answer = answer
        self.asked: list[tuple[str, Task]] = []
        self.timeouts: list[float | None] = []
        self.events: list[Event] = []

    @property
    def idle(self) -> int:
        return 0 if self.events else 1

    def submit(self, job: str, task: Task, tag: str, timeout: float | None = None) -> None:
        self.asked.append((tag, task))
        self.timeouts.append(timeout)
        self.events = self.answer(tag, task)

    def wait(self, timeout: float) -> list[Event]:
        events, self.events = self.events, []
        return events


class Told(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ended: list[tuple[str, str | None]] = []

    def say(self, lines: Any) -> None:
        self.lines += lines

    def finished(self, item: Item, record: Any) -> None:
        self.ended.append((item.key, record and record.status))


@pytest.fixture
def plan() -> Plan:
    entrants = resolve_all(["sgd", "fixed=sgd"], ["fixed.lr=0.1", "fixed.momentum=0"])
    settings = Settings(
        "quadratic",
        budget="20grads",
        tune=3,
        seeds=2,
        schedule="constant",
        defaults=False,
        twin=False,
    )
    return Plan(settings, [Entry.of(each) for each in entrants], "", {})


class House:
    """A scheduler with a real storage and pretending workers."""

    def __init__(self, plan: Plan, folder: Path, **changes: Any) -> None:
        self.plan = replace(plan, settings=replace(plan.settings, **changes))
        self.storage = Storage(embedded_url(folder))
        self.plan = self.storage.begin(self.plan)
        self.told = Told()
        self.folder = folder
        (folder / "runs").mkdir(exist_ok=True)
        entrants = [each.entrant() for each in self.plan.methods]
        self.scheduler = Scheduler(self.plan, entrants, self.storage, facts(), self.told, folder)
        self.scheduler.prepare()

    def work(self, answer: Answer = good, asked: threading.Event | None = None) -> Pretending:
        pool = Pretending(answer)
        self.scheduler.work(pool, asked or threading.Event(), lambda: None)  # type: ignore[arg-type]
        return pool


@pytest.fixture
def house(plan: Plan, tmp_path: Path) -> Any:
    made: list[House] = []

    def make(**changes: Any) -> House:
        made.append(House(plan, tmp_path, **changes))
        return made[-1]

    yield make
    for each in made:
        each.storage.close()


def test_all_runs_are_done_in_the_order_of_the_plan(house: Any) -> None:
    home = house()
    pool = home.work()
    assert [key for key, _ in pool.asked] == [item.key for item in items(home.plan)]
    assert set(home.storage.states().values()) == {"done"}
    assert [key for key, _ in home.told.ended] == [key for key, _ in pool.asked]


def test_tasks_hold_what_runs_need(house: Any) -> None:
    home = house()
    asked = dict(home.work().asked)
    tune, report = asked["tune/sgd/0/0"], asked["report/sgd/0/1"]
    assert (tune.item, report.item) == (Item.trial("sgd", 0, 0), Item.report("sgd", 0, 1))
    assert tune.settings == report.settings == home.plan.settings
    assert report.limits.to_dict() == {"forwards": 60.0}
    assert asked["report/fixed/0/0"].config == {}
    assert asked["report/fixed/0/0"].method.fixed == {"lr": 0.1, "momentum": 0}


def test_the_best_configuration_is_reported(house: Any) -> None:
    values = {"tune/sgd/0/0": 3.0, "tune/sgd/0/1": 1.0, "tune/sgd/0/2": 2.0}
    pool = house().work(lambda key, task: good(key, task, values.get(key, 9.0)))
    asked = dict(pool.asked)
    best = asked["tune/sgd/0/1"].config
    assert asked["report/sgd/0/0"].config == asked["report/sgd/0/1"].config == best
    assert best != asked["tune/sgd/0/0"].config


def test_if_all_tuning_fails_the_default_is_reported(house: Any) -> None:
    def failing(key: str, task: Task) -> list[Event]:
        return [Event("done", key, failed_run(task, "no"))]

    asked = dict(house().work(failing).asked)
    assert asked["report/sgd/0/0"].config == asked["tune/sgd/0/0"].config


def test_the_default_is_not_run_twice(house: Any) -> None:
    worse = {"tune/sgd/0/0": 1.0}
    home = house(defaults=True)
    pool = home.work(lambda key, task: good(key, task, worse.get(key, 2.0)))
    assert not [key for key, _ in pool.asked if key.startswith("default/")]
    assert home.storage.outcomes()["default/sgd/0/0"].record is None


def test_the_default_is_run_where_another_was_chosen(house: Any) -> None:
    better = {"tune/sgd/0/2": 0.5}
    pool = house(defaults=True).work(lambda k, m: good(k, m, better.get(k, 2.0)))
    asked = dict(pool.asked)
    assert asked["default/sgd/0/1"].config == asked["tune/sgd/0/0"].config
    assert "default/fixed/0/1" not in asked


def test_a_dead_worker_is_given_a_second_chance(house: Any) -> None:
    died: list[str] = []

    def dying(key: str, task: Task) -> list[Event]:
        if key == "tune/sgd/0/1" and not died:
            died.append(key)
            return [Event("died", key, "was killed by SIGSEGV")]
        return good(key, task)

    home = house()
    pool = home.work(dying)
    assert [key for key, _ in pool.asked].count("tune/sgd/0/1") == 2
    assert home.storage.outcomes()["tune/sgd/0/1"].record.status == "done"
    assert home.told.lines == ["tune 1  sgd: its process was killed by SIGSEGV; trying again"]


def test_and_no_third_one(house: Any) -> None:
    def dying(key: str, task: Task) -> list[Event]:
        return (
            [Event("died", key, "was killed by SIGSEGV")] if "sgd/0/1" in key else good(key, task)
        )

    home = house()
    pool = home.work(dying)
    record = home.storage.outcomes()["report/sgd/0/1"].record
    assert (record.status, record.stop_reason) == ("failed", "crashed")
    assert record.error == "the process was killed by SIGSEGV, in each of 2 attempts"
    assert [key for key, _ in pool.asked].count("report/sgd/0/1") == 2
    assert home.storage.outcomes()["report/fixed/0/1"].record.status == "done"


def test_a_run_that_takes_too_long_is_a_failed_run_and_the_others_go_on(house: Any) -> None:
    home = house(timeout="90s")
    late = items(home.plan)[0]

    def answer(key: str, task: Task) -> list[Event]:
        if key == late.key:
            return [Event("timeout", key, "was killed: it took longer than 90 s")]
        return good(key, task)

    pool = home.work(answer)
    assert set(pool.timeouts) == {90.0}
    assert [key for key, _ in pool.asked].count(late.key) == 1  # not tried again
    assert set(home.storage.states().values()) == {"done"}
    record = home.storage.outcomes([late.key])[late.key].record
    assert (record.status, record.stop_reason) == ("failed", "timeout")
    assert record.error == "the run was killed: it took longer than 90 s"


def test_the_usual_time_out_follows_the_estimate(house: Any) -> None:
    home = house()
    first = items(home.plan)[0]
    home.scheduler.expected = {first: 100.0}
    pool = home.work()
    assert pool.timeouts == [2000.0] + [600.0] * (len(pool.asked) - 1)


def test_an_unforeseen_error_is_a_failed_run(house: Any) -> None:
    def broken(key: str, task: Task) -> list[Event]:
        return [Event("error", key, {"kind": "", "text": "TypeError: x", "traceback": "Trace"})]

    home = house()
    home.work(broken)
    record = home.storage.outcomes()["report/sgd/0/0"].record
    assert (record.status, record.error, record.traceback) == (
        "failed",
        "TypeError: x",
        "Trace",
    )


def test_an_interruption_gives_runs_back(house: Any) -> None:
    asked = threading.Event()

    def interrupted(key: str, task: Task) -> list[Event]:
        if key == "tune/sgd/0/2":
            asked.set()
            return [Event("point", key, point(fraction=0.1, val_loss=1.0))]
        return good(key, task)

    home = house()
    with pytest.raises(Interrupted):
        home.work(interrupted, asked)
    states = home.storage.states()
    assert states["tune/sgd/0/1"] == "done"
    assert states["tune/sgd/0/2"] == "waiting"
    pool = house().work()
    assert pool.asked[0][0] == "tune/sgd/0/2"
    assert set(home.storage.states().values()) == {"done"}


def test_a_result_that_came_too_late_does_not_count(house: Any) -> None:
    home = house()

    def overtaken(key: str, task: Task) -> list[Event]:
        if key == "tune/sgd/0/0":
            home.storage.release(Item.from_key(key))
            other = Storage(home.storage.url)
            other.key = home.storage.key
            other.claim(Item.from_key(key))
            record = good(key, task, 0.25)[-1].content
            other.finish(Item.from_key(key), Outcome({}, {}, record, "x"))
            other.close()
        return good(key, task)

    home.work(overtaken)
    assert home.storage.outcomes()["tune/sgd/0/0"].record.final.loss == 0.25
    assert "another process took over this run" in home.told.lines[0]


def test_tpe_draws_after_what_it_learns_from(house: Any) -> None:
    def run(better: str) -> dict[str, Any]:
        home = house(sampler="tpe", tune=8)
        pool = home.work(lambda key, task: good(key, task, 0.0 if key == better else 1.0))
        found = {key: task.config for key, task in pool.asked}
        home.storage.close()
        os.unlink(home.folder / "compare.db")
        return found

    first, again, other = run("tune/sgd/0/0"), run("tune/sgd/0/0"), run("tune/sgd/0/1")
    assert first == again
    late = [f"tune/sgd/0/{index}" for index in range(4, 8)]  # earlier ones are drawn at random
    assert [first[key] for key in late] != [other[key] for key in late]


def test_an_edge_trial_waits_and_goes_beyond_the_edge(house: Any) -> None:
    """Two workers: the last trial of a tuning starts after the earlier ones have ended."""
    home = house(tune=4, tunings=2)
    (lr, _) = home.scheduler.entrants["sgd"].space
    best = max((0, 1), key=lambda t: _drawn(home, t, 1)["lr"])
    edge = replace(lr, low=1e-5, high=_drawn(home, best, 1)["lr"] * 1.01)
    entrant = home.scheduler.entrants["sgd"]
    home.scheduler.entrants["sgd"] = replace(entrant, space=(edge, *entrant.space[1:]))
    better = f"tune/sgd/{best}/1"
    pool = home.work(lambda key, task: good(key, task, 0.0 if key == better else 1.0))
    found = {key: task.config for key, task in pool.asked}
    assert found[f"tune/sgd/{best}/3"] == {**found[better], "lr": pytest.approx(edge.high * 10)}
    states = {item.key: "waiting" for item in home.scheduler.items}
    last = Item.trial("sgd", 0, 3)
    assert not home.scheduler._ready(last, states)
    states |= {Item.trial("sgd", 0, index).key: "done" for index in range(3)}
    assert home.scheduler._ready(last, states)


def _drawn(home: House, tuning: int, index: int) -> dict[str, Any]:
    return home.scheduler._draw(Item.trial("sgd", tuning, index))


def test_every_tuning_reports_what_it_chose_itself(house: Any) -> None:
    values = {"tune/sgd/0/1": 0.0, "tune/sgd/1/2": 0.0}
    pool = house(tunings=2).work(lambda key, task: good(key, task, values.get(key, 1.0)))
    found = {key: task.config for key, task in pool.asked}
    assert found["tune/sgd/0/0"] == found["tune/sgd/1/0"]
    assert found["tune/sgd/0/1"] != found["tune/sgd/1/1"]
    assert found["report/sgd/0/1"] == found["tune/sgd/0/1"]
    assert found["report/sgd/1/10000"] == found["tune/sgd/1/2"]


def test_curves_are_kept_line_by_line(house: Any) -> None:
    home = house()
    home.work()
    lines = (home.folder / "runs" / "report-sgd-0-0.jsonl").read_text().splitlines()
    begin, point, end = map(json.loads, lines)
    assert begin["run"] == "report/sgd/0/0"
    assert point["val_loss"] == 1.0
    assert end["end"]["status"] == "done"
    assert "curve" not in end["end"]


def test_a_folder_that_is_gone_stops_the_work_and_gives_back(house: Any, tmp_path: Path) -> None:
    home = house()
    (tmp_path / "runs").rmdir()
    with pytest.raises(StorageError, match="cannot write .* finished runs are kept"):
        home.work()
    assert set(home.storage.states().values()) == {"waiting"}


def test_the_keeper_beats_and_mirrors_and_reports_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "BEAT", 0.01)
    done: list[str] = []
    again = threading.Event()

    class Fake:
        def beat(self) -> None:
            done.append("beat")

        def update(self) -> None:
            done.append("mirror")
            if len(done) > 3:
                again.set()
                raise StorageError("disk full")

    with Keeper(Fake(), Fake()) as keeper:  # type: ignore[arg-type]
        assert again.wait(300)
    assert done[:4] == ["beat", "mirror", "beat", "mirror"]
    with pytest.raises(StorageError, match="disk full"):
        keeper.check()


def test_ctrl_c_is_a_flag_and_is_given_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interrupts() as asked:
        assert not asked.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        assert asked.wait(300)
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_have_no_signals() -> None:
    found: list[bool] = []

    def use() -> None:
        with interrupts() as asked:
            found.append(asked.is_set())

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert found == [False]


def test_scores() -> None:
    done = run(0, [2.0], final=Final(2.0, 0.5))
    assert results.score(Outcome({}, {}, done, ""), "min") == (0.5, 2.0)
    assert results.score(Outcome({}, {}, done, ""), "max") == (-0.5, 2.0)
    worst = (float("inf"), float("inf"))
    for none in (None, replace(done, status="diverged"), replace(done, final=Final(2.0, None))):
        assert results.score(Outcome({}, {}, none, ""), "max") == worst

"""Worker processes: answers, progress, deaths, replacements."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from example_results import task

from anyorder.compare.plan.plan import Entry
from anyorder.compare.plan.settings import Settings
from anyorder.compare.run.group import ending
from anyorder.compare.run.pool import GAP, STARTING, Event, Pool, WorkerError
from anyorder.testing.elsewhere import processes


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pool") / "output.log"


@pytest.fixture(scope="module")
def pool(log: Path) -> Iterator[Pool]:
    """One worker for all tests of this module: starting one takes seconds."""
    with Pool(1, 1, str(log)) as made:
        yield made


def until_the_end(pool: Pool) -> list[Event]:
    events: list[Event] = []
    while not events or events[-1].kind == "point":
        events += pool.wait(1.0)
    return events


def test_an_answer(pool: Pool) -> None:
    found = pool.ask("describe", Settings("rosenbrock", {"dim": 3}))
    assert (found.name, found.goal) == ("rosenbrock", "min")
    assert (found.optimum, found.options) == (0.0, {"dim": 3})


def test_progress_and_outcome_of_a_run(pool: Pool) -> None:
    pool.submit("run", task(problem="quadratic", evaluations=2), "tag")
    assert pool.idle == 0
    events = until_the_end(pool)
    assert [event.kind for event in events] == ["point"] * 3 + ["done"]
    assert {event.tag for event in events} == {"tag"}
    record = events[-1].content
    assert record.status == "done"
    assert record.curve == [event.content for event in events[:-1]]
    assert record.warmup_seconds > 0
    assert pool.idle == 1


def test_one_thread_as_asked_and_output_in_the_log(
    pool: Pool, problem_file: Callable[[str], str], log: Path
) -> None:
    path = problem_file("print('hello from the file', torch.get_num_threads(), flush=True)")
    pool.ask("describe", Settings(path))
    assert "hello from the file 1" in log.read_text()
    assert "OMP_NUM_THREADS" not in os.environ or os.environ["OMP_NUM_THREADS"]


def test_waiting_can_be_ended(pool: Pool) -> None:
    def check() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        pool.ask("describe", Settings("quadratic"), check)
    assert until_the_end(pool)[-1].kind == "done"


def test_errors_of_this_library_keep_their_name(pool: Pool) -> None:
    with pytest.raises(WorkerError, match="unknown problem 'digit'.*'digits'") as caught:
        pool.ask("describe", Settings("digit"))
    assert (caught.value.kind, caught.value.trace) == ("ProblemError", "")


def test_other_errors_bring_their_traceback(pool: Pool) -> None:
    with pytest.raises(WorkerError, match="AttributeError") as caught:
        pool.ask("describe", "digits")
    assert caught.value.kind == ""
    assert "Traceback" in caught.value.trace


def test_a_run_that_cannot_begin_is_a_failed_run(pool: Pool) -> None:
    lost = replace(task(), method=Entry("x", "nowhere.py:Mine", "", {}, search=False))
    pool.submit("run", replace(lost, settings=Settings("quadratic")), None)
    record = until_the_end(pool)[-1].content
    assert (record.status, record.stop_reason) == ("failed", "error")
    assert "does not exist" in record.error


def test_a_worker_that_dies_is_reported_and_replaced(
    pool: Pool,
    problem_file: Callable[[str], str],
    method_file: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "_context", processes())  # the next begin with PyTorch in memory
    pool.submit("run", task(method_file("os._exit(7)"), problem="quadratic"), "bad")
    last = until_the_end(pool)[-1]
    assert (last.kind, last.tag) == ("died", "bad")
    assert last.content == "exited with code 7"
    with pytest.raises(WorkerError, match="did the job 'describe' was killed by SIGSEGV"):
        pool.ask("describe", Settings(problem_file("import os; os.kill(os.getpid(), 11)")))
    assert pool.ask("describe", Settings("quadratic")).name == "quadratic"


#: A method that waits for ever in its second step, for a reader of a pipe that nobody opens.
HANGING = """
if self.count == 2:
    os.mkfifo({fifo!r})
    open({fifo!r}, "w")
return closure()
"""


def test_a_run_that_hangs_is_ended_and_the_next_one_goes_on(
    pool: Pool, method_file: Callable[[str], str], tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    spec = method_file(HANGING.format(fifo=str(fifo)))
    pool.submit("run", task(spec, problem="quadratic"), "late", timeout=1000.0)
    while not fifo.exists():
        assert [event.kind for event in pool.wait(0.1) if event.kind != "point"] == []
    (worker,) = pool._workers
    assert worker.deadline <= pool._watched + 1000.0  # counted since it began
    pool._watched += 1001.0
    (late,) = [event for event in pool.wait(0.1) if event.kind != "point"]
    assert (late.kind, late.tag) == ("timeout", "late")
    assert late.content == "was killed: it took longer than 1000 s"
    assert not worker.process.is_alive() and pool.idle == 1
    pool.submit("run", task(problem="quadratic"), "next")
    assert until_the_end(pool)[-1].content.status == "done"


def test_a_question_that_hangs_is_ended_in_words(
    pool: Pool, problem_file: Callable[[str], str], tmp_path: Path
) -> None:
    fifo = str(tmp_path / "fifo")
    path = problem_file(f"import os; os.mkfifo({fifo!r}); open({fifo!r}, 'w')")

    def check() -> None:
        if os.path.exists(fifo):
            pool._watched += 1e6

    with pytest.raises(WorkerError, match="the job 'describe' was killed: it took longer than 9 s"):
        pool.ask("describe", Settings(path), check, timeout=9.0)


def test_time_in_which_nobody_watched_does_not_count(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.wait(0.0)
    before, now = pool._watched, pool._looked
    for later in (3.0, 8000.0, 8001.0):  # stopped or asleep for two hours
        monkeypatch.setattr("time.monotonic", lambda later=later: now + later)
        pool._end_late()
    assert pool._watched - before == pytest.approx(3.0 + GAP + 1.0)


def test_a_process_has_time_to_start() -> None:
    with Pool(1, 1, os.devnull) as pool:
        pool.submit("describe", Settings("quadratic"), "x", timeout=1e-9)
        (worker,) = pool._workers
        assert worker.deadline == pool._watched + STARTING + 1e-9
        pool.close()
        pool.submit("describe", Settings("quadratic"), "x")
        assert pool._workers[0].deadline == float("inf")


def test_an_empty_pool_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    with Pool(2, 1, os.devnull) as empty:
        assert empty.wait(0.05) == []
        assert slept == [0.05]
        assert empty.idle == 2


def test_words_for_the_end_of_a_process() -> None:
    assert ending(-9) == "was killed by SIGKILL (out of memory?)"
    assert ending(-11) == "was killed by SIGSEGV"
    assert ending(3) == "exited with code 3"

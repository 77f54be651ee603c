"""The scheduler: claims runs, sends them to workers and stores the results."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from anyorder.compare.plan.entrants import Entrant
from anyorder.compare.plan.items import Item, Task, items
from anyorder.compare.plan.plan import Plan
from anyorder.compare.plan.seeds import stream
from anyorder.compare.plan.space import Config, configuration, depends
from anyorder.compare.progress import Silent
from anyorder.compare.run.estimate import timeout
from anyorder.compare.run.pool import Event, Pool
from anyorder.compare.run.records import RunRecord, failed_run
from anyorder.compare.store import results
from anyorder.compare.store.mirror import Mirror
from anyorder.compare.store.schema import Facts, Outcome
from anyorder.compare.store.storage import BEAT, Storage, StorageError
from anyorder.errors import AnyOrderError

#: Maximum number of attempts of a run whose process dies.
TRIES = 2
#: Seconds between checks of the progress of other processes.
LOOK = 1.0


class Interrupted(AnyOrderError, RuntimeError):  # noqa: N818 - requested, not an error
    """The comparison was interrupted; all finished runs are stored."""


@contextlib.contextmanager
def interrupts() -> Generator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into a flag; a second one ends the process at once."""
    interrupted = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            os._exit(128 + number)
        interrupted.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():
        yield interrupted  # only the main thread can set signal handlers
        return
    before = [signal.signal(number, handle) for number in numbers]
    try:
        yield interrupted
    finally:
        for number, old in zip(numbers, before, strict=True):
            signal.signal(number, old)


class Keeper:
    """A thread that keeps claims alive and the Optuna studies up to date.

    Args:
        storage: the storage with the claims.
        mirror: the studies to update.
    """

    def __init__(self, storage: Storage, mirror: Mirror) -> None:
        self._storage, self._mirror = storage, mirror
        self._stop = threading.Event()
        self._trouble: Exception | None = None
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def check(self) -> None:
        """Raise the error of the thread, if any."""
        if self._trouble is not None:
            raise self._trouble

    def __enter__(self) -> Keeper:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._stop.wait(BEAT):
            try:
                self._storage.beat()
                self._mirror.update()
            except Exception as error:  # raised in the main thread
                self._trouble = error
                return


@dataclass
class _Flight:
    """An active run."""

    task: Task
    crashes: int


class Scheduler:
    """Executes all runs of a plan that no other process executes.

    Args:
        plan: the plan.
        entrants: the methods.
        storage: storage of claims and outcomes.
        facts: results of the pilot.
        progress: progress output.
        out: folder of the comparison; curves are written to its subfolder ``runs``.
    """

    def __init__(
        self,
        plan: Plan,
        entrants: Sequence[Entrant],
        storage: Storage,
        facts: Facts,
        progress: Silent,
        out: Path,
    ) -> None:
        self.plan, self.storage, self.facts = plan, storage, facts
        self.progress, self.out = progress, out
        self.entrants = {entrant.name: entrant for entrant in entrants}
        self.entries = {method.name: method for method in plan.methods}
        self.items = items(plan)
        self.rates = results.rates_of(plan, facts)
        self.goal = facts.problem.goal
        self._flying: dict[str, _Flight] = {}
        self._chosen: dict[tuple[str, int], Config] = {}
        self._next_look = 0.0
        #: Estimated wall-clock seconds of runs.
        self.expected: Mapping[Item, float] = {}

    def prepare(self) -> None:
        """Add the runs to the storage, with the configurations that are already known."""
        self.storage.add(
            [
                (
                    item,
                    self._draw(item) if item.kind == "tune" and not self._depends(item) else None,
                )
                for item in self.items
            ]
        )

    def work(self, pool: Pool, interrupted: threading.Event, check: Callable[[], None]) -> None:
        """Work until every run of the plan is done, here or elsewhere.

        Raises:
            Interrupted: ``interrupted`` was set; active runs were released.
            StorageError: something could not be stored.
        """
        try:
            while True:
                if interrupted.is_set():
                    raise Interrupted("interrupted")
                check()
                if self._fill(pool) and not self._flying:
                    return
                for event in pool.wait(0.2):
                    self._handle(event)
        finally:
            self._give_back()

    # Choosing ------------------------------------------------------------------------------

    def _fill(self, pool: Pool) -> bool:
        """Submit runs to idle workers; return True if every run is done."""
        if not pool.idle or time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + LOOK  # unless a run ends here before
        states = self.storage.states()
        done = sum(states[item.key] == "done" for item in self.items)
        for item in self.items:
            if not pool.idle:
                break
            if states[item.key] == "done" or item.key in self._flying:
                continue
            if self._ready(item, states) and self._take(item, pool):
                self.progress.started(item)
        self.progress.waiting(done, len(self.items) - done - len(self._flying))
        return done == len(self.items)

    def _ready(self, item: Item, states: Mapping[str, str]) -> bool:
        """Whether the configuration of a run can be determined already."""
        if item.kind == "tune":
            needed = range(item.index if self._depends(item) else 0)
        else:
            needed = range(self.plan.trials(self.entries[item.method]))
        keys = (Item.trial(item.method, item.tuning, index).key for index in needed)
        return all(states[key] == "done" for key in keys)

    def _take(self, item: Item, pool: Pool) -> bool:
        claim = self.storage.claim(item)
        if claim is None:
            return False
        config = claim.config or self._config(item)
        if item.kind == "default" and config == self._tuned(item.method, 0):
            # Not executed: the reported runs already use the default.
            self._store(item, config, None)
            return False
        task = Task(self.plan.settings, self.entries[item.method], item, config, self.rates)
        self._flying[item.key] = _Flight(task, claim.crashes)
        self._note(item, {"run": item.key, "config": config, "seed": item.seed})
        limit = timeout(self.plan.settings, self.expected.get(item, 0.0))
        pool.submit("run", task, item.key, limit)
        return True

    def _config(self, item: Item) -> Config:
        if item.kind == "tune":
            return self._draw(item)
        if item.kind == "report":
            return self._tuned(item.method, item.tuning)
        return self._draw(Item.trial(item.method, 0, 0))

    def _draw(self, item: Item) -> Config:
        settings, past = self.plan.settings, []
        if self._depends(item):
            keys = [Item.trial(item.method, item.tuning, i).key for i in range(item.index)]
            found = self.storage.outcomes(keys)
            past = results.past([found[key] for key in keys], self.goal)
        return configuration(
            self.entrants[item.method].space,
            item.index,
            trials=settings.tune,
            sampler=settings.sampler,
            stream=stream(item.method, item.tuning),
            sampler_seed=settings.sampler_seed,
            past=past,
        )

    def _depends(self, item: Item) -> bool:
        """Whether a trial can be drawn only after the earlier ones of its tuning."""
        settings = self.plan.settings
        return item.kind == "tune" and depends(item.index, settings.tune, settings.sampler)

    def _tuned(self, method: str, tuning: int) -> Config:
        """The configuration that a tuning chose: the best of its trials."""
        if (method, tuning) not in self._chosen:
            entry = self.entries[method]
            keys = [Item.trial(method, tuning, i).key for i in range(self.plan.trials(entry))]
            found = self.storage.outcomes(keys)
            index = results.chosen(self.plan, entry, tuning, found, self.goal)
            default = self._draw(Item.trial(method, tuning, 0))
            self._chosen[method, tuning] = found[keys[index]].config if keys else default
        return self._chosen[method, tuning]

    # Storing -------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        flight = self._flying.get(event.tag)
        if flight is None:
            return
        task, item = flight.task, flight.task.item
        if event.kind == "point":
            self._note(item, asdict(event.content))
            self.progress.point(item, event.content)
            return
        record: RunRecord
        if event.kind == "done":
            record = event.content
        elif event.kind == "error":
            record = failed_run(task, event.content["text"], event.content["traceback"])
        elif event.kind == "timeout":
            record = failed_run(task, f"the run {event.content}")
            record.stop_reason = "timeout"
        elif flight.crashes + 1 < TRIES:
            self.progress.say([f"{item}: its process {event.content}; trying again"])
            self.storage.release(item, crashed=True)
            del self._flying[item.key]
            self._next_look = 0.0
            return
        else:
            text = f"the process {event.content}, in each of {TRIES} attempts"
            record = failed_run(task, text, crashed=True)
        del self._flying[item.key]
        self._store(item, task.config, record)

    def _store(self, item: Item, config: Config, record: RunRecord | None) -> None:
        self._next_look = 0.0
        settings = results.plain(self.entrants[item.method].settings(config))
        machine = platform.node() if record is not None else ""
        if record is not None:
            end = {name: part for name, part in asdict(record).items() if name != "curve"}
            self._note(item, {"end": end})
        if self.storage.finish(item, Outcome(config, settings, record, machine)):
            self.progress.finished(item, record)
        else:
            self.progress.say([f"{item}: another process took over this run; its result is used"])

    def _give_back(self) -> None:
        """Release the active runs."""
        flights = list(self._flying.values())
        self._flying.clear()
        # Without the database, others take these runs over as those of a dead process.
        with contextlib.suppress(StorageError, Interrupted):
            for flight in flights:
                self.storage.release(flight.task.item)

    def _note(self, item: Item, content: dict[str, Any]) -> None:
        """Append a line to the file of the run."""
        path = self.out / "runs" / item.file_name
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(content) + "\n")
        except OSError as error:
            raise StorageError(
                f"cannot write {path}: {error.strerror or error}. Free disk space and run the same "
                "command again; finished runs are kept"
            ) from error

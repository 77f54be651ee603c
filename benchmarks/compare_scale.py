"""A comparison with 10,000 runs: storing, listing, mirroring, results and report.

Fills a storage with finished runs through its public functions; every run is a copy of one that was
executed, with another value at its end.

Run:
    python benchmarks/compare_scale.py [sqlite:///FILE | postgresql://USER@HOST/DATABASE]
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import store

from anyorder.compare.plan.entrants import Entrant, resolve_all
from anyorder.compare.plan.items import Item, Task, items
from anyorder.compare.plan.plan import Entry, Plan
from anyorder.compare.plan.settings import Settings
from anyorder.compare.report import page
from anyorder.compare.run.environment import environment
from anyorder.compare.run.pilot import pilot
from anyorder.compare.run.records import Described, RunRecord
from anyorder.compare.run.runner import run
from anyorder.compare.store import results
from anyorder.compare.store.mirror import BATCH, Mirror
from anyorder.compare.store.schema import Facts, Outcome
from anyorder.compare.store.storage import Storage, embedded_url
from anyorder.problems import load

METHODS = [f"method_{number}=adamw" for number in range(10)]
SETTINGS = Settings(
    "quadratic", budget="200grads", tune=450, tunings=2, seeds=50, defaults=False, twin=False,
    threads=1, schedule="constant",
)  # fmt: skip
#: Runs that are mirrored to Optuna; the time of the others is proportional.
MIRRORED = 40 * BATCH


def executed(plan: Plan, facts: Facts) -> dict[str, RunRecord]:
    """One executed run of each kind."""
    problem, rates = load(plan.settings.problem), results.rates_of(plan, facts)
    found: dict[str, RunRecord] = {}
    for item in items(plan):
        if item.kind not in found:
            entry = plan.methods[0]
            task = Task(plan.settings, entry, replace(item, method=entry.name), {}, rates)
            found[item.kind] = run(problem, resolve_all([entry.spec], [])[0], task, lambda _: None)
    return found


def outcome(item: Item, entrant: Entrant, record: RunRecord, draw: random.Random) -> Outcome:
    """A run like ``record`` with a configuration and a value of its own."""
    config = {each.name: draw.uniform(each.low or 0.1, each.high or 0.9) for each in entrant.space}
    metric = draw.lognormvariate(0, 1)
    final = replace(record.final, loss=metric, metric=metric)
    changed = replace(record, seed=item.seed, tuning=item.tuning, config=config, final=final)
    return Outcome(config, results.plain(entrant.settings(config)), changed, "machine")


class Times(dict[str, float]):
    """Seconds by what was done."""

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Measure the block."""
        began = time.perf_counter()
        yield
        self[name] = round(time.perf_counter() - began, 3)
        print(f"{name}: {self[name]} s", file=sys.stderr, flush=True)

    def call(self, name: str, work: Callable[[], Any]) -> Any:
        """Measure a call and return its result."""
        with self.of(name):
            return work()


def main() -> None:
    """Measure and store."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = sys.argv[1] if len(sys.argv) > 1 else embedded_url(folder)
        entrants = resolve_all(METHODS, [])
        plan = Plan(SETTINGS, [Entry.of(each) for each in entrants], "", {})
        storage, todo, draw, times = Storage(url), items(plan), random.Random(0), Times()
        plan = storage.begin(plan)
        described = Described("quadratic", "quadratic", {}, "loss", "min", None, 0.0, "constant")
        found = pilot(load("quadratic"), "cpu", "none")
        facts = storage.keep_facts(Facts(described, found, environment(1, 1, "cpu")))
        records = executed(plan, facts)
        by_name = {each.name: each for each in entrants}
        outcomes = [(i, outcome(i, by_name[i.method], records[i.kind], draw)) for i in todo]
        times.call("add all", lambda: storage.add([(item, None) for item in todo]))
        with times.of("claim and finish all"):
            for item, made in outcomes:
                storage.claim(item)
                storage.finish(item, made)
        times.call("list states", storage.states)
        stored = times.call("read all outcomes", storage.outcomes)
        built = times.call(
            "build results", lambda: results.build(plan, facts, entrants, stored, "")
        )
        file = folder / "results.json"
        times.call("write results.json", lambda: results.keep(file, built))
        times.call("read results.json", lambda: results.load(file))
        times.call("write the report", lambda: page.write(built, folder))
        spaces = {each.name: each.space for each in entrants}
        mirror = Mirror(storage, "scale", "min", spaces)
        with times.of(f"mirror {MIRRORED} runs"):
            for _ in range(MIRRORED // BATCH):
                mirror.update()
        storage.close()
        sizes = {
            path.name: round(path.stat().st_size / 2**20, 2)
            for path in sorted(folder.iterdir())
            if path.is_file()
        }
    kind = url.partition(":")[0]
    result = {"runs": len(todo), "storage": kind, "seconds": times, "megabytes": sizes}
    store(f"compare_scale-{kind}", "cpu", result)


if __name__ == "__main__":
    main()

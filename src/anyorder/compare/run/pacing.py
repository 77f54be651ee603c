"""The time of all runs of a plan, estimated before the first one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from anyorder.compare.plan.items import Item, Task, items
from anyorder.compare.run.estimate import Pace, run_seconds, timeout
from anyorder.compare.run.pool import Pool, WorkerError

if TYPE_CHECKING:
    from anyorder.compare.plan.plan import Plan


def expected(
    plan: Plan,
    rates: dict[str, float],
    states: Mapping[str, str],
    pool: Pool,
    check: Callable[[], None],
) -> dict[Item, float]:
    """Estimate the seconds of each unfinished run from warm steps of its method in a worker.

    Args:
        plan: the plan.
        rates: price of each answer in forward passes.
        states: state of each run by its key; runs without one are unfinished.
        pool: where the steps are taken.
        check: called repeatedly while waiting, and can raise to stop waiting.

    Returns:
        Seconds by run; 0 for runs of a method whose steps fail.
    """
    left = [item for item in items(plan) if states.get(item.key) != "done"]
    entries = {entry.name: entry for entry in plan.methods}

    def task(item: Item) -> Task:
        return Task(plan.settings, entries[item.method], item, {}, rates)

    def source(item: Item) -> str:
        """The twin of a method is as fast as the method."""
        return entries[item.method].twin_of or item.method

    paces: dict[str, Pace] = {}
    for name in dict.fromkeys(map(source, left)):
        with contextlib.suppress(WorkerError):
            first = task(Item.trial(name, 0, 0))
            paces[name] = pool.ask("pace", first, check, timeout(plan.settings))
    return {
        item: run_seconds(paces[source(item)], task(item)) if source(item) in paces else 0.0
        for item in left
    }

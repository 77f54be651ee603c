"""Which steps are timed before the first run, and what is made of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from example_results import plan

from anyorder.compare.plan.items import Item, Task, items
from anyorder.compare.run.estimate import Pace
from anyorder.compare.run.pacing import expected
from anyorder.compare.run.pool import WorkerError
from anyorder.oracle.ledger import NOMINAL_RATES

RATES = dict(NOMINAL_RATES)


class Asked:
    """A pool whose steps take as long as the name of the method is long; some fail."""

    def __init__(self, *failing: str) -> None:
        self.failing, self.timeouts, self.names = failing, list[float](), list[str]()

    def ask(self, job: str, task: Task, check: Any, timeout: float) -> Pace:
        assert job == "pace" and check is print
        self.names.append(task.method.name)
        self.timeouts.append(timeout)
        if task.method.name in self.failing:
            raise WorkerError("it hangs")
        return Pace(float(len(task.method.name)), 3.0, 0.0, 0.0)


def test_each_method_with_runs_left_is_timed_once() -> None:
    one = plan("sgd", "adamw", budget="20grads", tune=2, seeds=2, timeout="90s")
    states = {item.key: "done" for item in items(one) if item.method == "sgd"}
    pool: Any = Asked()
    found = expected(one, RATES, states, pool, print)
    assert set(found) == {item for item in items(one) if item.method == "adamw"}
    assert set(found.values()) == {20 * 5.0}
    assert (pool.names, pool.timeouts) == (["adamw"], [90.0])


def test_steps_that_fail_leave_the_others_their_estimates() -> None:
    one = plan("sgd", "adamw", budget="20grads", tune=1, seeds=1)
    pool: Any = Asked("sgd")
    found = expected(one, RATES, {}, pool, print)
    assert {item.method: seconds for item, seconds in found.items()} == {"sgd": 0.0, "adamw": 100.0}
    assert pool.timeouts == [600.0, 600.0]


def test_a_twin_takes_as_long_as_its_method() -> None:
    one = plan("adamw", budget="20grads", tune=1, seeds=1)
    twin = replace(one.methods[0], name="adamw (A/A)", twin_of="adamw")
    one = replace(one, methods=[one.methods[0], twin])
    pool: Any = Asked()
    found = expected(one, RATES, {}, pool, print)
    assert found[Item.report("adamw (A/A)", 0, 0)] == found[Item.report("adamw", 0, 0)] == 100.0
    assert pool.names == ["adamw"]

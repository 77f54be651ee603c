"""Overhead of a run of ``anyorder compare`` over a bare training loop.

Run:
    python benchmarks/compare_overhead.py [--device cuda]

Both build the model, evaluate it at the start and at the end, and take the same steps on the same
batches with the same optimizer. The runner also counts answers, checks the budget, times the parts
of a step and copies the state near the end of the budget. As in a worker, what was imported and
loaded before is excluded from garbage collection. Goal: less than 3 %.
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from common import device_from, paired, ratios, store

from anyorder.compare.plan.entrants import Entrant, resolve
from anyorder.compare.plan.items import TUNING_EVALUATIONS, Item, Task
from anyorder.compare.plan.plan import Entry
from anyorder.compare.plan.settings import Settings
from anyorder.compare.run.runner import fresh_model, run
from anyorder.oracle.ledger import NOMINAL_RATES
from anyorder.problems import Problem, ProblemError, load, move

#: Problems and the steps of a run.
STEPS = {"digits": 1000, "fashion": 200, "stdlib-lm": 60}
METHODS = ("adamw", "torch.optim:AdamW")


def bare(problem: Problem, entrant: Entrant, steps: int, device: str) -> Callable[[], Any]:
    """A plain loop."""

    def loop() -> None:
        model = fresh_model(problem, 0, device)
        make: Any = entrant.cls
        optimizer = make(model if entrant.ours else model.parameters(), lr=1e-4)
        problem.evaluate(model)
        for step in range(steps):
            closure = problem.closure(model, move(problem.batch(0, step), device))
            if entrant.ours:
                optimizer.step(closure)
            else:
                optimizer.zero_grad()
                closure().backward()
                optimizer.step()
        problem.evaluate(model)

    return loop


def through(problem: Problem, entrant: Entrant, steps: int, device: str) -> Callable[[], Any]:
    """The same as a trial of a comparison, which is evaluated twice."""
    settings = Settings(
        str(problem.name), budget=f"{steps}grads", evaluations=TUNING_EVALUATIONS,
        schedule="constant", device=device,
    )  # fmt: skip
    item = Item.trial(entrant.name, 0, 0)
    task = Task(settings, Entry.of(entrant), item, {"lr": 1e-4}, dict(NOMINAL_RATES))

    def one() -> None:
        record = run(problem, entrant, task)
        assert record.status == "done" and record.curve[-1].steps == steps, record.error

    return one


def main() -> None:
    """Measure and store."""
    warnings.simplefilter("ignore")
    device = device_from(sys.argv)
    torch.set_num_threads(1)
    times: dict[str, Any] = {}
    overhead: dict[str, float] = {}
    for name, steps in STEPS.items():
        problem = load(name)
        try:
            problem.batch(0, 0)
        except ProblemError as error:  # its data is not there
            print(f"left out: {error}")
            continue
        for method in METHODS:
            entrant = resolve(method)
            parts = (problem, entrant, steps, device)
            loops = {"bare": bare(*parts), "run": through(*parts)}
            for loop in loops.values():
                loop()
            gc.collect()
            gc.freeze()
            found = paired(loops, rounds=7, warmup=0)
            times[f"{name}, {method}"] = found
            overhead[f"{name}, {method}"] = round(ratios(found, "bare")["run"] - 1.0, 4)
    store("compare_overhead", device, {"steps": STEPS, "times": times, "overhead": overhead})


if __name__ == "__main__":
    main()

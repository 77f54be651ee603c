"""Regret of ``anyorder race`` against fixed choices that get the same total budget.

Run:
    python benchmarks/race_regret.py [PROBLEM=GRADS ...]

On each problem, with one total budget each:

- race: what the race returns;
- default: AdamW with its default setting, trained for the whole budget;
- tuned: each method tuned with 4 trials and trained once, each run with a fifth of the budget; the
  best by validation;
- hindsight: each method with each learning rate of a grid around its default, trained for the
  whole budget; the best by validation. It uses as many budgets as there are choices.

The judged number is the test metric where there is test data. An error is the metric if it should
be small, else one minus the metric. Goals: an error within 10 % of the best tuned method, and below
that of default AdamW on most problems.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, store

from anyorder.compare.plan.entrants import Entrant, resolve_all
from anyorder.compare.plan.items import Item, Task
from anyorder.compare.plan.limits import prices
from anyorder.compare.plan.plan import Entry
from anyorder.compare.plan.settings import Settings
from anyorder.compare.plan.space import configuration
from anyorder.compare.racing import race
from anyorder.compare.racing.request import METHODS
from anyorder.compare.run.runner import run
from anyorder.problems import Problem, load

#: Total budgets in gradients.
PROBLEMS = {
    "spam": 1500, "cancer": 2000, "adult": 1000, "eclipses": 1500, "digits": 1000, "banking": 700,
    "polarity": 600,
}  # fmt: skip
#: Learning rates in hindsight, as multiples of the default.
FACTORS = (1.0, 10.0, 100.0)
TRIALS = 4


class Judge:
    """Runs configurations on one problem."""

    def __init__(self, name: str) -> None:
        self.problem: Problem = load(name)
        self.sign = 1.0 if self.problem.goal == "min" else -1.0
        self.settings = Settings(name, evaluations=4, schedule=self.problem.schedule)

    def error(self, validation: float | None, test: Any) -> float:
        """The judged number, small is good."""
        value = (test or {}).get(self.problem.metric, validation)
        if value is None:
            return math.inf
        return value if self.sign > 0 else 1.0 - value

    def run(
        self, entrant: Entrant, config: dict[str, Any], grads: int, *, trial: bool = False
    ) -> tuple[float, float]:
        """Signed validation metric and error of one run."""
        settings = replace(self.settings, budget=f"{grads}grads")
        kind = Item("tune" if trial else "report", entrant.name, 0, 0, 0)
        record = run(
            self.problem, entrant, Task(settings, Entry.of(entrant), kind, config, prices())
        )
        if record.status != "done" or record.final.metric is None:
            return math.inf, math.inf
        return self.sign * record.final.metric, self.error(record.final.metric, record.test)

    def tuned(self, entrant: Entrant, grads: int) -> tuple[float, float]:
        """The result of a method that is tuned, all within the budget."""
        each = grads // (TRIALS + 1)
        past: list[tuple[dict[str, Any], tuple[float, float]]] = []
        for index in range(TRIALS):
            config = configuration(entrant.space, index, trials=TRIALS, sampler="qmc", past=past)
            value, _ = self.run(entrant, config, each, trial=True)
            past.append((config, (value, 0.0)))
        best = min(past, key=lambda one: one[1])[0]
        return self.run(entrant, best, each)


def measure(name: str, grads: int) -> dict[str, Any]:
    """All four on one problem."""
    judge, entrants = Judge(name), resolve_all(METHODS)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        found = race(name, budget=f"{grads}grads", out=Path(out), threads=1)
    seconds = time.perf_counter() - began
    fixed: dict[str, tuple[float, float]] = {}
    for entrant in entrants:
        rate = entrant.settings()["lr"]
        for factor in FACTORS:
            fixed[f"{entrant.name} x{factor:g}"] = judge.run(entrant, {"lr": rate * factor}, grads)
    tuned = {entrant.name: judge.tuned(entrant, grads) for entrant in entrants}
    hindsight, best = (min(each, key=lambda one: each[one]) for each in (fixed, tuned))
    errors = {
        "race": judge.error(found.winner.metric, found.test),
        "default": fixed["adamw x1"][1],
        "tuned": tuned[best][1],
        "hindsight": fixed[hindsight][1],
    }
    return {
        "grads": grads,
        "metric": judge.problem.metric,
        "winner": found.winner.name,
        "trained": found.length,
        "best_tuned": best,
        "best_in_hindsight": hindsight,
        "race_seconds": round(seconds, 1),
        "errors": {what: round(error, 6) for what, error in errors.items()},
        "over_tuned": round(errors["race"] / errors["tuned"] - 1, 4),
        "over_hindsight": round(errors["race"] / errors["hindsight"] - 1, 4),
        "better_than_default": errors["race"] < errors["default"],
    }


def main() -> None:
    """Measure and store after each problem."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    wanted = dict(each.split("=") for each in sys.argv[1:]) or PROBLEMS
    stored = RESULTS / "race-regret-cpu.json"  # problems that are not measured again stay
    found: dict[str, Any] = json.loads(stored.read_text())["problems"] if stored.exists() else {}
    for name, grads in wanted.items():
        found[name] = measure(name, int(grads))
        count = len(found)
        store(
            "race-regret",
            "cpu",
            {
                "seeds": 1,
                "problems": found,
                "within_10_percent_of_tuned": sum(e["over_tuned"] <= 0.1 for e in found.values()),
                "better_than_default": sum(e["better_than_default"] for e in found.values()),
                "of": count,
            },
        )


if __name__ == "__main__":
    main()

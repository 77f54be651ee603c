"""Real A/A comparisons: how often a method is called different from itself.

Run:
    python benchmarks/aa.py [COMPARISONS]

Every comparison tunes AdamW four times and, independently, with other trials and other seeds,
either AdamW again or ``torch.optim.AdamW``, and judges the pair as ``anyorder compare`` does. The
promise is that at most 5 % are separated. Finished comparisons are kept: the same command
continues; to measure again, delete the file with the results.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, store

from anyorder.compare.plan.entrants import resolve
from anyorder.compare.plan.items import Item, Task, items
from anyorder.compare.plan.limits import prices
from anyorder.compare.plan.plan import Plan
from anyorder.compare.plan.seeds import TWIN, stream
from anyorder.compare.plan.settings import Settings
from anyorder.compare.plan.space import configuration
from anyorder.compare.run import environment
from anyorder.compare.run.pilot import pilot
from anyorder.compare.run.records import Described
from anyorder.compare.run.runner import run
from anyorder.compare.stats.verdicts import compare_pairs
from anyorder.compare.store import results
from anyorder.compare.store.schema import Facts, Outcome
from anyorder.problems import load

#: Problems and gradients of a run, for at most 20 seconds of one core per comparison.
PROBLEMS = {"quadratic": 60, "cancer": 60, "digits": 60, "eclipses": 60, "spam": 40}
#: The methods that AdamW is compared with: itself, under another name.
AGAINST = ("adamw", "torch.optim:AdamW")
TRIALS, TUNINGS, COMPARISONS = 4, 4, 40


@cache
def facts(name: str) -> Facts:
    """What is known of a problem before the first run."""
    problem = load(name)
    described = Described(
        name, name, {}, problem.metric, problem.goal, problem.target, problem.optimum,
        problem.schedule,
    )  # fmt: skip
    return Facts(described, pilot(problem, "cpu", "none"), environment.environment(1, 1, "cpu"))


def compared(number: int) -> dict[str, Any]:
    """One comparison with seeds of its own, and its verdict."""
    names = list(PROBLEMS)
    name, spec = names[number % len(names)], AGAINST[number // len(names) % 2]
    problem, known = load(name), facts(name)
    settings = Settings(
        name, budget=f"{PROBLEMS[name]}grads", tune=TRIALS, tunings=TUNINGS, seeds=1, twin=False,
        defaults=False, schedule=problem.schedule, evaluations=4, sampler_seed=number, threads=1,
    )  # fmt: skip
    # A name like that of a twin: trials and seeds are independent of those of the first.
    entrants = [resolve("adamw"), resolve(spec, f"again{TWIN}")]
    plan = Plan.of(settings, entrants)
    named = {each.name: (each, entry) for each, entry in zip(entrants, plan.methods, strict=True)}
    began, outcomes = time.process_time(), dict[str, Outcome]()
    for item in items(plan):
        entrant, entry = named[item.method]
        trials = [Item.trial(item.method, item.tuning, index).key for index in range(TRIALS)]
        if item.kind == "report":
            best = results.chosen(plan, entry, item.tuning, outcomes, problem.goal)
            config = outcomes[trials[best]].config
        else:
            past = results.past([outcomes[key] for key in trials[: item.index]], problem.goal)
            config = configuration(
                entrant.space, item.index, trials=TRIALS, sampler="qmc", past=past,
                stream=stream(item.method, item.tuning), sampler_seed=number,
            )  # fmt: skip
        own = replace(item, seed=item.seed + 1_000_000 * number)
        record = run(problem, entrant, Task(settings, entry, own, config, prices()))
        chosen = results.plain(entrant.settings(config))
        outcomes[item.key] = Outcome(config, chosen, record, "")
    (pair,) = compare_pairs(results.build(plan, known, entrants, outcomes, ""))
    return {
        "number": number,
        "problem": name,
        "against": spec,
        "verdict": pair.verdict,
        "p": round(pair.p, 6),
        "difference": pair.difference,
        "cpu_seconds": round(time.process_time() - began, 2),
    }


def main() -> None:
    """Measure and store after each comparison."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    gc.freeze()  # as in a worker process: every run collects garbage before it starts
    wanted = int(sys.argv[1]) if sys.argv[1:] else COMPARISONS
    path = Path(os.environ.get("ANYORDER_BENCH_OUT", RESULTS)) / "aa-cpu.json"
    done: list[dict[str, Any]] = json.loads(path.read_text())["done"] if path.exists() else []
    for number in range(len(done), wanted):
        done.append(compared(number))
        last = done[-1]
        sys.stderr.write(
            f"[{number + 1}/{wanted}] {last['problem']}, {last['against']}: {last['verdict']}, "
            f"p = {last['p']:.3g}, {last['cpu_seconds']} s\n"
        )
        separated = sum(each["verdict"] in ("better", "worse") for each in done)
        conditions = {"problems": PROBLEMS, "trials": TRIALS, "tunings": TUNINGS, "seeds": 1}
        store("aa", "cpu", {**conditions, "of": len(done), "separated": separated, "done": done})


if __name__ == "__main__":
    main()

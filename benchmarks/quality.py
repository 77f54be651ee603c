"""Final loss and time to target of the first-order methods, tuned alike, against tuned AdamW.

Run:
    python benchmarks/quality.py [--jobs J] [PROBLEM ...]

Runs ``anyorder compare`` with five seeds on each problem and keeps its leaderboard. It may be
stopped and started again: finished runs are kept in ./quality and never repeated.

A problem's own target may lie outside what so short a run can reach, so a second one is set
afterwards: the mean final metric of tuned AdamW. ``to_adamw`` holds for each method the cost that
is to be expected until it is reached, in gradients, with a 95 % interval, and the share of runs
that reached it; null stands for infinity.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from common import RESULTS

from anyorder.compare.report.tuning import edge
from anyorder.compare.stats.estimators import Interval
from anyorder.compare.stats.leaderboard import summarise
from anyorder.compare.stats.targets import time_to_target
from anyorder.compare.stats.verdicts import compare_pairs
from anyorder.compare.store import results
from anyorder.compare.store.schema import Results
from anyorder.oracle.ledger import NOMINAL_RATES

#: Methods, and what is fixed for those that take part under a name of their own.
METHODS = [
    "adamw", "adamw8=adamw", "lion", "lion_k", "sgd", "exadam", "scale", "muon",
    "schedule_free_adamw", "adagrad",
]  # fmt: skip
FIXED = ["adamw8.state=8bit", "lion_k.kappa=huber", "muon.adjust_lr=match_rms_adamw"]


class Setting(NamedTuple):
    """How the methods are compared on a problem."""

    budget: str
    tune: int
    options: tuple[str, ...] = ()
    evaluations: int = 20
    more: tuple[str, ...] = ()  # methods beyond those above


PROBLEMS = {
    "fashion": Setting("600grads", 5, more=("adagrad_norm", "accelerated", "sso")),
    "stdlib-lm": Setting("80grads", 3, ("size=small",), evaluations=10),
}


def command(problem: str, out: Path, jobs: int) -> list[str]:
    """The comparison as a command."""
    setting = PROBLEMS[problem]
    start = [sys.executable, "-c", "from anyorder.command.cli import main; main()"]
    words = [*start, "compare", problem, "--methods", ",".join([*METHODS, *setting.more])]
    words += ["--budget", setting.budget, "--tune", str(setting.tune), "--seeds", "5"]
    words += ["--evaluations", str(setting.evaluations), "--jobs", str(jobs)]
    words += ["--threads", "1", "--out", str(out)]
    for fixed in FIXED:
        words += ["--set", fixed]
    for option in setting.options:
        words += ["--option", option]
    return words


def record(found: Results) -> dict[str, Any]:
    """Results without their curves, too long for a record, and with what they say."""
    goal, methods = found.problem.goal, {method.name: method for method in found.methods}
    ends = [run.final.metric for run in methods["adamw"].runs if run.final.metric is not None]
    target = sum(ends) / len(ends)
    kept = asdict(found)
    for method in kept["methods"]:
        runs = methods[method["name"]].runs
        reach = time_to_target(runs, target, goal, "forwards")
        spread = reach.interval() or Interval(math.nan, math.nan)
        costs = {"grads": reach.expected, "low": spread.low, "high": spread.high}
        method["to_adamw"] = {
            **{name: _in_grads(forwards) for name, forwards in costs.items()},
            "success": reach.success,
        }
        method["edge"] = edge(methods[method["name"]])
        for run in (*method["runs"], *method["default_runs"]):
            del run["curve"]
    pairs = [pair for pair in compare_pairs(found) if "adamw" in (pair.a, pair.b)]
    return {
        **kept,
        "leaderboard": [asdict(row) for row in summarise(found)],
        "against_adamw": [asdict(pair) for pair in pairs],
        "adamw_target": target,
    }


def _in_grads(forwards: float) -> float | None:
    return forwards / NOMINAL_RATES["grads"] if math.isfinite(forwards) else None


def main() -> int:
    """Compare and keep what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", nargs="*", default=list(PROBLEMS), metavar="PROBLEM")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    for problem in asked.problems:
        out = Path("quality") / problem
        code = subprocess.run(command(problem, out, asked.jobs), check=False, env=os.environ)
        if code.returncode:
            return code.returncode
        found = record(results.load(out / "results.json"))
        path = RESULTS / f"quality-{problem}.json"
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(f"kept in {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

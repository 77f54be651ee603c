"""Final loss and time to target of the first-order methods, tuned alike, against tuned AdamW.

Run:
    python benchmarks/quality.py [PROBLEM ...]

Runs ``anyorder compare`` with five seeds on each problem and keeps its leaderboard. It may be
stopped and started again: finished runs are kept in ./quality and never repeated.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import RESULTS

#: Methods, and what is fixed for those that take part under a name of their own.
METHODS = [
    "adamw", "adamw8=adamw", "lion", "lion_k", "sgd", "exadam", "scale", "muon",
    "schedule_free_adamw", "adagrad", "torch.optim:AdamW",
]  # fmt: skip
FIXED = ["adamw8.state=8bit", "lion_k.kappa=huber", "muon.adjust_lr=match_rms_adamw"]
#: Budget of a run and options of the problem.
PROBLEMS: dict[str, tuple[str, list[str]]] = {
    "fashion": ("200grads", []),
    "stdlib-lm": ("150grads", ["size=small"]),
}


def command(problem: str, out: Path) -> list[str]:
    """The comparison as a command."""
    budget, options = PROBLEMS[problem]
    start = [sys.executable, "-c", "from anyorder.cli import main; main()"]
    words = [*start, "compare", problem, "--methods", ",".join(METHODS)]
    words += ["--budget", budget, "--tune", "5", "--seeds", "5", "--jobs", "2", "--out", str(out)]
    for fixed in FIXED:
        words += ["--set", fixed]
    for option in options:
        words += ["--option", option]
    return words


def main() -> int:
    """Compare and keep what was found."""
    for problem in sys.argv[1:] or PROBLEMS:
        out = Path("quality") / problem
        code = subprocess.run(command(problem, out), check=False, env=os.environ).returncode
        if code:
            return code
        found: dict[str, Any] = json.loads((out / "results.json").read_text())
        for run in (run for method in found["methods"] for run in method["runs"]):
            run.pop("curve", None)  # too long for a record; the report in ./quality draws them
        path = RESULTS / f"quality-{problem}.json"
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(f"kept in {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

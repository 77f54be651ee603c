"""Tables of the page on suite and race, from stored results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from anyorder.compare.report.formats import show
from anyorder.compare.report.suite import Grid, grids, sentences
from anyorder.compare.stats.overview import Overview

ROOT = Path(__file__).parent.parent


def suite(name: str) -> str:
    """Sentences and tables of a suite in ``docs/results``."""
    text = (ROOT / f"docs/results/suite-{name}.json").read_text(encoding="utf-8")
    found = TypeAdapter(Overview).validate_json(text)
    lines = [
        f"Results of `{found.command}` (anyorder {found.created_by}, {found.created[:10]}):",
        "",
    ]
    lines += [f"- {each}" for each in sentences(found)]
    for grid in grids(found):
        lines += ["", f"{grid.caption}:", "", *_table(grid)]
    return "\n".join(lines)


def regret() -> str:
    """Errors of races and of fixed choices, from ``benchmarks/results``."""
    path = ROOT / "benchmarks/results/race-regret-cpu.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        [
            name,
            f"{each['grads']:,}",
            each["winner"],
            *(show(each["errors"][what], 3) for what in ("race", "default", "tuned", "hindsight")),
            each["best_tuned"],
            each["best_in_hindsight"],
        ]
        for name, each in found["problems"].items()
    ]
    head = ["problem", "gradients", "winner of the race", "race", "default AdamW", "best tuned"]
    head += ["hindsight", "tuned method", "choice in hindsight"]
    count = found["of"]
    return "\n".join(
        [
            f"Measured with {found['seeds']} seed on {count} problems. The race is within 10 % "
            f"of the best tuned on {found['within_10_percent_of_tuned']} of {count}, and better "
            f"than default AdamW on {found['better_than_default']}.",
            "",
            *_table(Grid("", head, rows)),
        ]
    )


def _table(grid: Grid) -> list[str]:
    rows = [grid.head, ["---"] * len(grid.head), *grid.rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]

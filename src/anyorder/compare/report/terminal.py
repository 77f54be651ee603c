"""The result of a comparison on a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from anyorder.compare.report.tuning import first_tuning
from anyorder.compare.stats.verdicts import Row
from anyorder.compare.store.schema import MethodRecord, Results


def leaderboard(results: Results, rows: Sequence[Row], out: Path) -> RenderableType:
    """A table with one row per method, best first, and the paths of the report.

    Fits 80 columns by stacking values within a cell.

    Args:
        results: the results.
        rows: their summary.
        out: their folder.
    """
    problem, plan = results.problem, results.plan.settings
    metric = problem.metric
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("method\ntuned", overflow="fold")
    for column in ("final loss", *([metric] if metric != "loss" else []), "to target", "cost"):
        table.add_column(column, justify="right", no_wrap=True)
    settings = {method.name: _tuned(method) for method in results.methods}
    for row in rows:
        table.add_row(
            Text(row.name, style="bold").append(settings.get(row.name, ""), style="not bold dim"),
            _interval(row.final_loss, row.low, row.high),
            *([_interval(row.metric, row.metric_low, row.metric_high)] if metric != "loss" else []),
            _target(row),
            "\n".join([*_answers(row.calls), f"{_number(row.seconds)} s"]),
        )
    better = "smaller" if problem.goal == "min" else "larger"
    target = "" if problem.target is None else f"; target: {metric} {problem.target:g}"
    lines: list[RenderableType] = [
        Text(
            f"{problem.name}, {plan.budget} per run, {plan.seeds} seeds; {metric} is "
            f"better when {better}{target}"
        ),
        table,
    ]
    lines += [Text(note, style="yellow") for note in _notes(rows)]
    lines += [Text(f"note: {warning}", style="yellow") for warning in results.warnings]
    lines += [Text(f"report:  {out / 'report.html'}"), Text(f"numbers: {out / 'results.json'}")]
    return Group(*lines)


def _notes(rows: Sequence[Row]) -> list[str]:
    """Notes on methods; equal notes of several methods are merged."""
    whom: dict[str, list[str]] = {}
    for row in rows:
        for part in filter(None, row.note.split("; ")):
            whom.setdefault(part, []).append(row.name)
    return [
        f"{'all' if len(names) == len(rows) > 1 else ', '.join(names)}: {part}"
        for part, names in whom.items()
    ]


def _tuned(method: MethodRecord) -> str:
    first = first_tuning(method)
    names = [each.name for each in first.space]
    return "".join(f"\n  {name}={_short(first.settings[name])}" for name in names)


def _interval(middle: float, low: float | None, high: float | None) -> str:
    if not math.isfinite(middle):
        return "-"
    if low is None or high is None:
        return _number(middle)
    return f"{_number(middle)}\n{_number(low)} to {_number(high)}"


def _target(row: Row) -> str:
    """Expected cost to the target, and the number of runs that reached it."""
    if row.success is None:
        return "-"
    if not row.success:
        return "missed"
    hits = round(row.success * row.runs)
    unit = "s" if row.unit == "seconds" else row.unit
    return f"{_number(row.target_cost)} {unit}\n{hits} of {row.runs} runs"


def _answers(calls: dict[str, float]) -> list[str]:
    kinds = ["values", "grads", "products", "rankings"]
    if calls.get("output_grads") != calls.get("grads"):  # otherwise each gradient includes one
        kinds.append("output_grads")
    return [f"{calls[kind]:.0f} {kind}" for kind in kinds if calls.get(kind)]


def _number(value: float | None) -> str:
    return f"{value:.3g}" if value is not None and math.isfinite(value) else "-"


def _short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)

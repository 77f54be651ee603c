"""The result of a comparison on a terminal, or in a log."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from anyorder.compare.plan.limits import bytes_in
from anyorder.compare.report.formats import plural, show_bytes
from anyorder.compare.report.headline import headline
from anyorder.compare.stats.leaderboard import Row
from anyorder.compare.stats.records import criteria
from anyorder.compare.stats.targets import main_target
from anyorder.compare.stats.tuning import searched
from anyorder.compare.store.schema import MethodRecord, Results

#: Wider intervals are wrapped; all columns together then fit 80.
_WIDEST = 15
#: Width that the other columns leave for names and settings, at least.
_METHOD = 20


def leaderboard(results: Results, rows: Sequence[Row], out: Path) -> RenderableType:
    """Headline, a table with one row per method, best first, and the paths of the report.

    Fits 80 columns, on a terminal and in a log, by stacking values within a cell. Only paths are
    not wrapped, so that they can be copied.

    Args:
        results: the results.
        rows: their summary.
        out: their folder.
    """
    lines: list[RenderableType] = [Text(_title(results)), Text()]
    lines += [_item(sentence) for sentence in headline(results)]
    lines += [Text(), _table(results, rows), Text()]
    lines += [_item(note, "yellow") for note in _grouped(_notes(rows), len(rows))]
    lines += [_item(note) for note in _grouped(_spaces(results.methods), len(results.methods))]
    lines += [_item(f"note: {warning}", "yellow") for warning in results.warnings]
    for name, file in (("report: ", "report.html"), ("numbers:", "results.json")):
        lines.append(Text(f"{name} {out / file}", no_wrap=True, overflow="ignore"))
    return Group(*lines)


def _item(text: str, style: str = "") -> Text:
    return Text(f"- {text}", style=style)


def _title(results: Results) -> str:
    problem, plan = results.problem, results.plan.settings
    better = "smaller" if problem.goal == "min" else "larger"
    target = main_target(results)
    wanted = "" if target is None else f"; target: {problem.metric} {_number(target.value)}"
    limit = f" and at most {show_bytes(bytes_in(plan.memory))}" if plan.memory else ""
    many = f"{plural(plan.tunings, 'tuning')} x " if plan.tunings > 1 else ""
    return (
        f"{problem.name}, {plan.budget}{limit} per run, {many}{plural(plan.seeds, 'seed')}; "
        f"{problem.metric} is better when {better}{wanted}"
    )


def _table(results: Results, rows: Sequence[Row]) -> Table:
    first, *others = criteria(results)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("method\ntuned", overflow="fold")
    unit = rows[0].unit if rows else ""
    names = [each.name.replace(" ", "\n", 1) for each in (first, *others[:1])]
    for column in (*names, f"to target\n({unit})", "cost", "memory\nadded"):
        table.add_column(column, justify="right", no_wrap=True)
    settings = {method.name: _tuned(method) for method in results.methods}
    for row in rows:
        second = row.metric if others and others[0].key == "metric" else row.final_loss
        table.add_row(
            Text(row.name, style="bold").append(settings.get(row.name, ""), style="not bold dim"),
            _interval(row.judged, row.judged_low, row.judged_high),
            *([_number(second)] if others else []),
            _target(row),
            "\n".join([*_answers(row.calls), f"{_number(row.seconds)} s"]),
            show_bytes(row.run_bytes) + "\n(*)" * row.pareto,
        )
    if any(row.pareto for row in rows):
        table.caption = "(*) no other is as good in result, cost and memory at once"
        table.caption_justify = "left"
    return table


def _notes(rows: Sequence[Row]) -> Iterable[tuple[str, str]]:
    return ((row.name, part) for row in rows for part in filter(None, row.note.split("; ")))


def _spaces(methods: Sequence[MethodRecord]) -> Iterable[tuple[str, str]]:
    """The search space of each method."""
    for method in methods:
        if found := searched(method):
            yield method.name, f"searched {', '.join(map(str, found))}"


def _grouped(remarks: Iterable[tuple[str, str]], count: int) -> list[str]:
    """Notes on methods; equal notes of several methods are merged."""
    whom: dict[str, list[str]] = {}
    for name, part in remarks:
        whom.setdefault(part, []).append(name)
    return [
        f"{'all' if len(names) == count > 1 else ', '.join(names)}: {part}"
        for part, names in whom.items()
    ]


def _tuned(method: MethodRecord) -> str:
    """The chosen values: minimum and maximum over the tunings."""
    names = dict.fromkeys(each.name for tuning in method.tunings for each in tuning.space)
    lines = ""
    for name in names:
        values = _range([tuning.settings[name] for tuning in method.tunings])
        long = len(name) + len(values) > _METHOD - 3
        lines += f"\n  {name}={chr(10) + '    ' if long else ''}{values}"
    return lines


def _range(values: Sequence[Any]) -> str:
    if not all(isinstance(value, int | float) for value in values):
        return "|".join(dict.fromkeys(map(_short, values)))
    ends = dict.fromkeys([_short(min(values)), _short(max(values))])
    return "..".join(ends)


def _interval(middle: float, low: float | None, high: float | None) -> str:
    if not math.isfinite(middle):
        return "-"
    if low is None or high is None:
        return _number(middle)
    ends = f"{_number(low)} to {_number(high)}"
    if len(ends) > _WIDEST:
        ends = ends.replace(" to ", " to\n")
    return f"{_number(middle)}\n{ends}"


def _target(row: Row) -> str:
    """Expected cost to the target, and the number of runs that reached it."""
    if row.success is None:
        return "-"
    hits = f"{round(row.success * row.runs)}/{row.runs} runs"
    return f"{_number(row.target_cost)}\n{hits}" if row.success else f"missed\n{hits}"


def _answers(calls: dict[str, float]) -> list[str]:
    kinds = ["values", "grads", "products", "rankings"]
    if calls.get("output_grads") != calls.get("grads"):  # otherwise each gradient includes one
        kinds.append("output_grads")
    return [
        f"{_count(calls[kind])} {kind.replace('output_grads', 'out. grads')}"
        for kind in kinds
        if calls.get(kind)
    ]


def _count(value: float) -> str:
    """A count with at most five characters, up to 10 ** 12."""
    power = next((p for p in (0, 3, 6) if value < 1e4 * 10**p), 9)
    return f"{value / 10**power:.0f}" + {0: "", 3: "k", 6: "M", 9: "G"}[power]


def _number(value: float | None) -> str:
    return f"{value:.3g}" if value is not None and math.isfinite(value) else "-"


def _short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)

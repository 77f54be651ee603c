"""Charts with one row per method: final values, and cost to the target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from anyorder.compare.report.charts import (
    AT_EDGE,
    AXIS_LABELS,
    Chart,
    Series,
    dot,
    focus,
    known,
    outside,
    wants_log,
)
from anyorder.compare.report.formats import plural, show, show_budget, show_interval
from anyorder.compare.run.records import RunRecord
from anyorder.compare.stats.estimators import Goal, Interval, interval, iqm
from anyorder.compare.stats.leaderboard import ends_of, summarise
from anyorder.compare.stats.records import AXES, Axis, judged_by, main_axis, units
from anyorder.compare.stats.targets import Target, main_target, time_to_target
from anyorder.compare.store.schema import Results

#: How to read the chart of a target.
_READ = (
    "Dots: runs that reached it. Crosses on the right: runs that did not reach it; they count as "
    "longer than all others. Large mark: median. Bar: its 95 % interval, with at least six tunings "
    "or seeds."
)

Entry = tuple[int, str, list[RunRecord]]


def _entries(results: Results) -> list[Entry]:
    """Index, name and runs of every method with runs, best first."""
    names = [method.name for method in results.methods]
    order = [names.index(row.name) for row in summarise(results)]
    return [(i, names[i], runs) for i in order if (runs := results.methods[i].runs)]


def _with_interval(value: float, spread: Interval | None) -> str:
    return f"{show(value)} {show_interval(*ends_of(spread))}".strip()


def _bar(spread: Interval | None, row: int) -> list[list[float | None]]:
    return [] if spread is None else [[known(spread.low), known(spread.high), row]]


# --- Final values ------------------------------------------------------------------------------


def final_values(results: Results) -> Chart | None:
    """What every run ended with, in what the methods are judged by."""
    criterion = judged_by(results)
    name, goal = criterion.name, criterion.goal
    entries = _entries(results)
    series: list[Series] = []
    rows: list[list[str]] = []
    for place, (index, method, runs) in enumerate(entries):
        values = [criterion.of(run) for run in runs]
        blocks = units(runs, criterion.of)
        middle, spread = iqm(blocks), interval(blocks)
        said = _with_interval(middle, spread)
        told = [_end(run, value) for run, value in zip(runs, values, strict=True)]
        dots = [
            dot(known(value), place, f"seed {run.seed}: {end}")
            for run, value, end in zip(runs, values, told, strict=True)
        ]
        if math.isfinite(middle):
            dots.append(dot(middle, place, f"interquartile mean {said}", "centre"))
        bars = _bar(spread, place) if math.isfinite(middle) else []
        series.append({"m": index, "dots": dots, "bars": bars})
        rows.append([method, said, ", ".join(told)])
    places = [mark["x"] for each in series for mark in each["dots"]]
    seen = [x for x in places if x is not None]
    if not seen:
        return None
    log = wants_log(seen, goal)
    ends = focus(seen, seen, goal, log=log)
    direction = "larger is better" if goal == "max" else "smaller is better"
    return {
        "id": "final",
        "kind": "rows",
        "title": f"Final {name} of every run",
        "alt": f"Final {name}, {direction}. Interquartile means, with 95 % intervals if any: "
        + "; ".join(f"{row[0]} {row[1]}" for row in rows)
        + ".",
        "notes": [
            "Dots: single runs. Large mark: interquartile mean over tunings, or over seeds if "
            "each was tuned once. Bar: its 95 % interval, with at least six of these.",
            *filter(None, [outside(ends, goal, AT_EDGE)]),
        ],
        "y": {"rows": [method for _, method, _ in entries]},
        "gutter": "no result" if len(seen) < len(places) else None,
        "views": {
            "fixed": {
                "x": {"label": f"final {name} ({direction})", "log": log, "range": ends},
                "series": series,
            }
        },
        "table": {
            "caption": f"Final {name}",
            "head": ["method", "interquartile mean", "runs, in order of the seeds"],
            "rows": rows,
        },
    }


def _end(run: RunRecord, value: float) -> str:
    return show(value) if math.isfinite(value) else run.status


# --- Time to the target ------------------------------------------------------------------------


def target_times(results: Results) -> Chart | None:
    """When each run reached the target; misses stand apart, where no number can be read off."""
    target, goal = main_target(results), results.problem.goal
    entries = _entries(results)
    if target is None or not entries:
        return None
    main = main_axis(results)
    views: dict[str, Any] = {}
    rows: list[list[str]] = []
    reached = False
    for axis in AXES:
        found = [
            _times(runs, target, goal, axis, place) for place, (_, _, runs) in enumerate(entries)
        ]
        series: list[Series] = [
            {"m": index, **drawn} for (index, _, _), (drawn, _) in zip(entries, found, strict=True)
        ]
        seen = [mark["x"] for each in series for mark in each["dots"] if mark["x"]]
        reached = reached or bool(seen)
        label = f"{AXIS_LABELS[axis]} to the target"
        views[axis] = {
            "x": {"label": label, "log": wants_log(seen), "zero": True},
            "series": series,
        }
        if axis == main:
            rows = [[name, *row] for (_, name, _), (_, row) in zip(entries, found, strict=True)]
    wanted = f"{results.problem.metric} {'≥' if goal == 'max' else '≤'} {show(target.value)}"
    return {
        "id": "target",
        "kind": "rows",
        "title": f"Cost to the target: {wanted}",
        "alt": f"Cost to reach {wanted}, in {AXIS_LABELS[main]}. "
        + "; ".join(
            f"{row[0]}: reached by {row[1]}, median {row[2]}, expected running time {row[3]}"
            for row in rows
        )
        + ".",
        "notes": [
            f"Target: {target.source}.",
            *([_READ] if reached else []),
        ],
        "y": {"rows": [method for _, method, _ in entries]},
        "gutter": "missed",
        "empty": "" if reached else _never(results, wanted),
        "views": views,
        "table": {
            "caption": f"Cost to the target in {AXIS_LABELS[main]}",
            "head": [
                "method",
                "reached by",
                "median",
                "expected running time",
                "runs, in order of the seeds",
            ],
            "rows": rows,
        },
    }


def _never(results: Results, wanted: str) -> str:
    """Why the chart of a target is empty, and how close the runs came."""
    problem, sign = results.problem, 1.0 if results.problem.goal == "min" else -1.0
    found = [
        (sign * point.metric, method.name)
        for method in results.methods
        for run in method.runs
        for point in run.curve
        if point.metric is not None
    ]
    said = f"No run reached {wanted} within {show_budget(results.plan.settings.budget)}."
    if not found:
        return f"{said} No run has a finite {problem.metric}."
    best, name = min(found)
    return f"{said} The closest was {name} with {show(sign * best)}."


def _times(
    runs: Sequence[RunRecord], target: Target, goal: Goal, axis: Axis, place: int
) -> tuple[Series, list[str]]:
    """Marks of one method, and its cells in the table."""
    reach = time_to_target(runs, target.value, goal, axis)
    spread = reach.interval()
    said = [
        show(spent) if hit else f"missed after {show(spent)}"
        for spent, hit in zip(reach.spent, reach.hit, strict=True)
    ]
    unit = "s" if axis == "seconds" else axis
    dots = [
        dot(spent if hit else None, place, f"seed {seed}: {words} {unit}")
        for seed, spent, hit, words in zip(reach.seeds, reach.spent, reach.hit, said, strict=True)
    ]
    middle = _with_interval(reach.median, spread) if any(reach.hit) else "never"
    bars: list[list[float | None]] = []
    if math.isfinite(reach.median):
        dots.append(dot(reach.median, place, f"median {middle} {unit}", "centre"))
        bars = _bar(spread, place)
    expected = show(reach.expected) if any(reach.hit) else "never"
    reached = f"{sum(reach.hit)} of {plural(len(reach.hit), 'run')}"
    return {"dots": dots, "bars": bars}, [reached, middle, expected, ", ".join(said)]

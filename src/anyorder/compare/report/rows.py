"""Charts with one row per method: final values, and cost to the target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from anyorder.compare.report.charts import AXIS_LABELS, Chart, Series, dot, known, wants_log
from anyorder.compare.report.formats import plural, show, show_interval
from anyorder.compare.run.records import RunRecord
from anyorder.compare.stats.estimators import Goal, Interval, interval, iqm
from anyorder.compare.stats.records import AXES, Axis, final, judged_by, main_axis
from anyorder.compare.stats.verdicts import summarise, time_to_target
from anyorder.compare.store.schema import Results

Entry = tuple[int, str, list[RunRecord]]


def _entries(results: Results) -> list[Entry]:
    """Index, name and runs of every method with runs, best first."""
    names = [method.name for method in results.methods]
    order = [names.index(row.name) for row in summarise(results)]
    return [(i, names[i], runs) for i in order if (runs := results.methods[i].runs)]


def _with_interval(value: float, spread: Interval | None) -> str:
    ends = (None, None) if spread is None else (spread.low, spread.high)
    return f"{show(value)} {show_interval(*ends)}".strip()


def _bar(spread: Interval | None, row: int) -> list[list[float | None]]:
    return [] if spread is None else [[known(spread.low), known(spread.high), row]]


# --- Final values ------------------------------------------------------------------------------


def final_values(results: Results) -> Chart | None:
    """The final value of every run, in the ranking metric."""
    key, goal = judged_by(results)
    name = results.problem.metric if key == "metric" else "validation loss"
    entries = _entries(results)
    series: list[Series] = []
    rows: list[list[str]] = []
    for place, (index, method, runs) in enumerate(entries):
        values = [final(run, key, goal) for run in runs]
        middle, spread = iqm(values), interval(values)
        said = _with_interval(middle, spread)
        ends = [_end(run, value) for run, value in zip(runs, values, strict=True)]
        dots = [
            dot(known(value), place, f"seed {run.seed}: {end}")
            for run, value, end in zip(runs, values, ends, strict=True)
        ]
        if math.isfinite(middle):
            dots.append(dot(middle, place, f"interquartile mean {said}", "centre"))
        bars = _bar(spread, place) if math.isfinite(middle) else []
        series.append({"m": index, "dots": dots, "bars": bars})
        rows.append([method, said, ", ".join(ends)])
    places = [mark["x"] for each in series for mark in each["dots"]]
    seen = [x for x in places if x is not None]
    if not seen:
        return None
    direction = "larger is better" if goal == "max" else "smaller is better"
    return {
        "id": "final",
        "kind": "rows",
        "title": f"Final {name} of every run",
        "alt": f"Final {name}, {direction}. Interquartile means with 95 % intervals: "
        + "; ".join(f"{row[0]} {row[1]}" for row in rows)
        + ".",
        "notes": ["Dots: single runs. Large mark: interquartile mean. Bar: its 95 % interval."],
        "y": {"rows": [method for _, method, _ in entries]},
        "gutter": "no result" if len(seen) < len(places) else None,
        "views": {
            "fixed": {
                "x": {"label": f"final {name} ({direction})", "log": wants_log(seen), "goal": goal},
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
    """Cost of each run to the target; runs that missed it are drawn separately."""
    target, goal = results.problem.target, results.problem.goal
    entries = _entries(results)
    if target is None or not entries:
        return None
    main = main_axis(results)
    views: dict[str, Any] = {}
    rows: list[list[str]] = []
    for axis in AXES:
        found = [
            _times(runs, target, goal, axis, place) for place, (_, _, runs) in enumerate(entries)
        ]
        series: list[Series] = [
            {"m": index, **drawn} for (index, _, _), (drawn, _) in zip(entries, found, strict=True)
        ]
        seen = [mark["x"] for each in series for mark in each["dots"] if mark["x"]]
        label = f"{AXIS_LABELS[axis]} to the target"
        views[axis] = {
            "x": {"label": label, "log": wants_log(seen), "zero": True},
            "series": series,
        }
        if axis == main:
            rows = [[name, *row] for (_, name, _), (_, row) in zip(entries, found, strict=True)]
    condition = f"{results.problem.metric} {'≥' if goal == 'max' else '≤'} {show(target)}"
    return {
        "id": "target",
        "kind": "rows",
        "title": f"Cost to the target: {condition}",
        "alt": f"Cost to reach {condition}, in {AXIS_LABELS[main]}. "
        + "; ".join(f"{row[0]}: reached by {row[1]}, expected cost {row[2]}" for row in rows)
        + ".",
        "notes": [
            "Dots: runs that reached it. Crosses on the right: runs that did not reach it. "
            "Large mark: expected running time, the cost of all runs over the number of "
            "those that reached it. Bar: its 95 % interval."
        ],
        "y": {"rows": [method for _, method, _ in entries]},
        "gutter": "missed",
        "views": views,
        "table": {
            "caption": f"Cost to the target in {AXIS_LABELS[main]}",
            "head": [
                "method",
                "reached by",
                "expected running time",
                "runs, in order of the seeds",
            ],
            "rows": rows,
        },
    }


def _times(
    runs: Sequence[RunRecord], target: float, goal: Goal, axis: Axis, place: int
) -> tuple[Series, list[str]]:
    """Marks of one method, and its cells in the table."""
    reach = time_to_target(runs, target, goal, axis)
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
    expected = _with_interval(reach.expected, spread) if any(reach.hit) else "never"
    bars: list[list[float | None]] = []
    if math.isfinite(reach.expected):
        dots.append(dot(reach.expected, place, f"expected {expected} {unit}", "centre"))
        bars = _bar(spread, place)
    reached = f"{sum(reach.hit)} of {plural(len(reach.hit), 'run')}"
    return {"dots": dots, "bars": bars}, [reached, expected, ", ".join(said)]

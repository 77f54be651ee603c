"""The charts of a report as data; curves of loss and metric against cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from anyorder.compare.report.charts import (
    AXIS_LABELS,
    LEAVING,
    Chart,
    Series,
    focus,
    outside,
    short,
    wants_log,
)
from anyorder.compare.report.formats import show, show_interval
from anyorder.compare.report.rows import final_values, target_times
from anyorder.compare.report.tuning import best_of_trials, learning_rates
from anyorder.compare.run.records import Point, RunRecord
from anyorder.compare.stats.estimators import Band, Curve, Floats, Goal, band, median
from anyorder.compare.stats.records import AXES, Axis, cost, main_axis, number, succeeded
from anyorder.compare.store.schema import Results

#: Maximum number of points of a median line.
BAND_POINTS = 64
#: Minimum share of the way from the start to the best value that a chart shows.
_SHARE = 0.05


def figures(results: Results) -> list[Chart]:
    """All charts that have data, in the order of the page."""
    makers: list[Callable[[Results], Chart | None]] = [final_values, loss_curves]
    if results.problem.metric != "loss":
        makers.append(metric_curves)
    makers += [target_times, best_of_trials, learning_rates]
    return [chart for make in makers if (chart := make(results)) is not None]


def loss_curves(results: Results) -> Chart | None:
    """Validation loss against cost, or its distance to the optimum if known."""
    optimum = results.problem.optimum
    if optimum is not None:
        title = "Distance of the validation loss to the optimum"
        return _chart(results, "loss", title, _Quantity("val_loss", "min", optimum))
    return _chart(results, "loss", "Validation loss", _Quantity("val_loss"))


def metric_curves(results: Results) -> Chart | None:
    """The problem's metric against cost, with a line at the target."""
    name, target = results.problem.metric, results.problem.target
    title = name[:1].upper() + name[1:]
    chart = _chart(results, "metric", title, _Quantity("metric", results.problem.goal))
    if chart is not None and target is not None:
        chart["lines"] = [{"at": target, "label": f"target {show(target)}"}]
        if ends := chart["y"]["range"]:
            chart["y"]["range"] = _including(target, ends)
    return chart


def _including(value: float, ends: list[float]) -> list[float]:
    """The range with a value, unless that more than doubles its length."""
    low, high = min(value, ends[0]), max(value, ends[1])
    return [low, high] if high - low <= 2 * (ends[1] - ends[0]) else ends


@dataclass(frozen=True)
class _Quantity:
    """The plotted quantity of an evaluation, minus its optimum."""

    field: Literal["val_loss", "metric"]
    goal: Goal = "min"
    optimum: float | None = None

    def of(self, point: Point) -> float:
        value = point.val_loss if self.field == "val_loss" else point.metric
        return number(value) - (self.optimum or 0.0)

    def curve(self, run: RunRecord, axis: Axis) -> Curve:
        points = [(cost(point, axis), self.of(point)) for point in run.curve]
        finite = [point for point in points if math.isfinite(point[1])]
        x, y = zip(*finite, strict=True) if finite else ((), ())
        return Curve(x, y, lost=not succeeded(run))


@dataclass(frozen=True)
class _Drawn:
    """The runs of one method on one axis."""

    name: str
    seeds: list[str]
    curves: list[Curve]
    middle: Band

    def series(self, index: int) -> Series:
        x = short(self.middle.x)
        return {
            "m": index,
            "band": [x, short(self.middle.low), short(self.middle.high)],
            "line": [x, short(self.middle.mid)],
            "thin": [
                {"text": seed, "lost": curve.lost, "x": list(curve.x), "y": list(curve.y)}
                for seed, curve in zip(self.seeds, self.curves, strict=True)
                if curve.x
            ],
        }


def _drawn(results: Results, quantity: _Quantity, axis: Axis) -> list[_Drawn]:
    found: list[_Drawn] = []
    for method in results.methods:
        curves = [quantity.curve(run, axis) for run in method.runs]
        seeds = [f"seed {run.seed}" for run in method.runs]
        found.append(_Drawn(method.name, seeds, curves, band(curves, quantity.goal, BAND_POINTS)))
    return found


def _chart(results: Results, key: str, title: str, quantity: _Quantity) -> Chart | None:
    per_axis = {axis: _drawn(results, quantity, axis) for axis in AXES}
    axis = main_axis(results)
    main = per_axis[axis]
    if not any(curve.x for each in main for curve in each.curves):
        return None
    ends, log, note = _scale([c for each in main for c in each.curves if c.x], quantity)
    notes = [_band_note(results), note, outside(ends, quantity.goal, LEAVING)]
    label = title[0].lower() + title[1:]
    return {
        "id": key,
        "kind": "curve",
        "title": title,
        "alt": _in_words(title, main, quantity.goal, axis),
        "notes": list(filter(None, notes)),
        "y": {"label": label, "log": log, "range": ends, "goal": quantity.goal},
        "views": {
            each: {
                "x": {"label": AXIS_LABELS[each], "log": False},
                "series": [one.series(index) for index, one in enumerate(per_axis[each])],
            }
            for each in AXES
        },
        "table": _table(main, label, axis),
    }


def _scale(curves: Sequence[Curve], quantity: _Quantity) -> tuple[list[float] | None, bool, str]:
    """Return the range of the y axis, whether it is logarithmic, and a note.

    The second halves of the runs that succeeded determine the range. Runs that move further from
    the best value than they were at the start do not make an axis logarithmic.
    """
    low = quantity.goal == "min"
    values, starts = [y for curve in curves for y in curve.y], [curve.y[0] for curve in curves]
    start, best = (max(starts), min(values)) if low else (min(starts), max(values))
    limit = 2 * start - best if start != best else (math.inf if low else -math.inf)
    note = ""
    if quantity.optimum is not None and min(values) <= 0:
        note = "Points at the optimum or, by rounding, below it are drawn at the lower edge."
        values = [y for y in values if y > 0]
    log = wants_log([y for y in values if (y <= limit if low else y >= limit)], quantity.goal)
    kept = [curve for curve in curves if not curve.lost] or curves
    late = [y for curve in kept for y in curve.y[len(curve.y) // 2 :]]
    floor = _SHARE * abs(median(starts) - best)
    return focus(late, values, quantity.goal, log=log, floor=floor), log, note


def _band_note(results: Results) -> str:
    counts = {len(method.runs) for method in results.methods} - {0}
    if max(counts) == 1:
        return "One seed: a single run per method, so the spread is unknown."
    what = "middle half of the runs" if min(counts) >= 5 else "all runs, from best to worst"
    return f"Line: median over seeds. Band: {what}. Thin lines: single runs."


def _table(drawn: Sequence[_Drawn], label: str, axis: Axis) -> dict[str, Any]:
    """Medians and bands at quarters of the longest median line."""
    end = max((float(each.middle.x[-1]) for each in drawn if each.middle.x.size), default=0.0)
    places = [end * share for share in (0.25, 0.5, 0.75, 1.0)]
    unit = " s" if axis == "seconds" else f" {axis}"
    return {
        "caption": f"Median {label}, and its band",
        "head": ["method", *(f"at {show(place, 3)}{unit}" for place in places)],
        "rows": [[each.name, *(_read(each.middle, place) for place in places)] for each in drawn],
    }


def _read(middle: Band, place: float) -> str:
    """The median and its band at one cost; a dash beyond the end of the line."""
    # Runs with a budget in seconds end at slightly different times: allow 5 %.
    if not middle.x.size or not middle.x[0] <= place <= 1.05 * middle.x[-1]:
        return show(None)
    huge = np.finfo(np.float64).max

    def at(values: Floats) -> float:
        found = float(np.interp(place, middle.x, np.clip(values, -huge, huge)))
        return math.copysign(math.inf, found) if abs(found) > 1e-3 * huge else found

    return f"{show(at(middle.mid))} {show_interval(at(middle.low), at(middle.high))}"


def _in_words(title: str, drawn: Sequence[_Drawn], goal: Goal, axis: Axis) -> str:
    ends = [(float(each.middle.mid[-1]), each.name) for each in drawn if each.middle.x.size]
    ends.sort(reverse=goal == "max")
    said = "; ".join(f"{name} {show(value)}" for value, name in ends)
    return (
        f"{title} against {AXIS_LABELS[axis]}, one line per method. "
        f"Medians where the lines end, best first: {said or 'none'}."
    )

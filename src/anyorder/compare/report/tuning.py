"""Charts of tuning: gain by more trials, and sensitivity to the learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from anyorder.compare.report.charts import (
    AT_EDGE,
    LEAVING,
    Chart,
    Series,
    dot,
    focus,
    known,
    outside,
    wants_log,
)
from anyorder.compare.report.formats import show
from anyorder.compare.stats.estimators import Goal, best_of_k
from anyorder.compare.stats.tuning import (
    edges,
    expected_best,
    not_tuned_out,
    searched,
    trial_values,
    trials_of,
)
from anyorder.compare.store.schema import MethodRecord, Results, Trial


def chosen_of(method: MethodRecord) -> list[Trial]:
    """The trials whose configurations are reported, one per tuning with trials."""
    return [tuning.trials[tuning.chosen] for tuning in method.tunings if tuning.trials]


# --- Best of k ---------------------------------------------------------------------------------


def best_of_trials(results: Results) -> Chart | None:
    """Expected best of ``k`` tuning trials, against ``k``."""
    goal, name = results.problem.goal, results.problem.metric
    sign = 1.0 if goal == "min" else -1.0
    series: list[Series] = []
    rows: list[list[str]] = []
    for index, method in enumerate(results.methods):
        values = trial_values(method, goal)
        if len(values) < 2 or not np.isfinite(values).any():
            continue
        found = best_of_k(values)
        ends = [[known(sign * value) for value in side] for side in (found.low, found.high)]
        line = [(int(k), sign * m) for k, m in zip(found.k, found.mean, strict=True) if m < np.inf]
        series.append(
            {
                "m": index,
                "band": [found.k.tolist(), *ends[:: int(sign)]],
                "line": [list(side) for side in zip(*line, strict=True)],
            }
        )
        means = [
            f"{k}: {show(value)}"
            for k, value in expected_best(method, goal).items()
            if math.isfinite(value)
        ]
        lost = int(np.isinf(values).sum())
        rows.append([method.name, str(len(values)), str(lost), "; ".join(means)])
    if not series:
        return None
    means = [each["line"][1] for each in series]
    values = [mean for line in means for mean in line]
    log = wants_log(values, goal)
    late = [mean for line in means for mean in line[len(line) // 2 :]]
    shown = focus(late, values, goal, log=log)
    return {
        "id": "best-of-k",
        "kind": "curve",
        "title": "What tuning buys: best of k trials",
        "alt": f"Expected best {name} of k tuning trials against k. "
        + "; ".join(f"{row[0]}: {row[3].rpartition(': ')[2]} in one tuning" for row in rows)
        + ".",
        "notes": [
            "Line: mean over all subsets of k trials of all tunings. Band: middle half of the "
            "subsets. A line begins where no subset consists of diverged trials only.",
            *filter(None, [outside(shown, goal, LEAVING)]),
            *(f"Not tuned out: {each.method} ({each.reason})." for each in not_tuned_out(results)),
        ],
        "y": {"label": f"best {name} of k", "log": log, "range": shown, "goal": goal},
        "views": {
            "fixed": {
                "x": {"label": "k, number of trials", "log": False, "whole": True},
                "series": series,
            }
        },
        "table": {
            "caption": f"Expected best {name} of k trials",
            "head": ["method", "trials", "without result", "k: expected best"],
            "rows": rows,
        },
    }


# --- Learning rate -----------------------------------------------------------------------------


def learning_rates(results: Results) -> Chart | None:
    """Result of each trial against its learning rate, with the search range."""
    goal, name = results.problem.goal, results.problem.metric
    sign = 1.0 if goal == "min" else -1.0
    series: list[Series] = []
    rows: list[list[str]] = []
    for index, method in enumerate(results.methods):
        values = (sign * trial_values(method, goal)).tolist()
        chosen = {id(trial) for trial in chosen_of(method)}
        points = sorted(
            (lr, value, id(trial) in chosen)
            for trial, value in zip(trials_of(method), values, strict=True)
            if (lr := trial.config.get("lr", 0.0)) > 0
        )
        if len(points) < 2:
            continue
        span, line = lr_range(method), [point[:2] for point in points if math.isfinite(point[1])]
        series.append(
            {
                "m": index,
                "dots": [_trial(*point) for point in points],
                "line": [list(side) for side in zip(*line, strict=True)] if line else [[], []],
                "edges": span,
            }
        )
        ends = show(None) if span is None else f"{show(span[0])} to {show(span[1])}"
        told = "; ".join(mark["text"] for mark in series[-1]["dots"])
        at_edge = [each for each in edge(method).split("; ") if each.startswith("lr ")]
        rows.append([method.name, ends, "; ".join(at_edge) or "inside", told])
    seen = [value for each in series for value in each["line"][1]]
    return _lr_chart(series, rows, seen, goal, name) if seen else None


def _lr_chart(
    series: list[Series], rows: list[list[str]], seen: Sequence[float], goal: Goal, name: str
) -> Chart:
    flagged = [f"{row[0]}: {row[2]}." for row in rows if row[2] != "inside"]
    log = wants_log(seen, goal)
    ends = focus(seen, seen, goal, log=log)
    lost = any(mark["y"] is None for each in series for mark in each["dots"])
    return {
        "id": "lr",
        "kind": "scatter",
        "title": "Sensitivity to the learning rate",
        "alt": f"Result ({name}) of each tuning trial against its learning rate. "
        + "; ".join(f"{row[0]}, searched {row[1]}: chosen value {row[2]}" for row in rows)
        + ".",
        "notes": [
            "Dots: trials of all tunings, which also differ in other settings. Large marks: chosen "
            "ones. Brackets on the axis: search range.",
            *filter(None, [outside(ends, goal, AT_EDGE)]),
            *flagged,
        ],
        "y": {"label": name, "log": log, "range": ends, "goal": goal},
        "gutter": "no result" if lost else None,
        "views": {"fixed": {"x": {"label": "learning rate", "log": True}, "series": series}},
        "table": {
            "caption": "Tuning trials by learning rate",
            "head": ["method", "searched", "chosen value", "trials"],
            "rows": rows,
        },
    }


def _trial(lr: float, value: float, chosen: bool) -> dict[str, Any]:
    said = f"lr {show(lr)}: {show(value) if math.isfinite(value) else 'no result'}"
    return dot(lr, known(value), said + " (chosen)" * chosen, "centre" if chosen else "seed")


def lr_range(method: MethodRecord) -> list[float] | None:
    """The search range of the learning rate, over all tunings."""
    for each in searched(method):
        if each.name == "lr" and each.low is not None and each.high is not None:
            return [each.low, each.high]
    return None


def edge(method: MethodRecord) -> str:
    """A warning for each chosen value at an end of its range, or empty."""
    said = [
        f"{dimension.name} {show(value)} is at the {side} end of the range, the best may be outside"
        for dimension, value, side in edges(method)
    ]
    return "; ".join(dict.fromkeys(said))

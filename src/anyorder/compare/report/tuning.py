"""Charts of tuning: gain by more trials, and sensitivity to the learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from anyorder.compare.report.charts import Chart, Series, dot, known, wants_log
from anyorder.compare.report.formats import show
from anyorder.compare.stats.estimators import Floats, Goal, best_of_k
from anyorder.compare.store.schema import MethodRecord, Results, Trial, TuningRecord


def first_tuning(method: MethodRecord) -> TuningRecord:
    """The first tuning of a method; an empty one if it could not take part."""
    return method.tunings[0] if method.tunings else TuningRecord(0, [], 0, {}, [])


def chosen_of(method: MethodRecord) -> Trial | None:
    """The trial whose configuration is reported; None if there was no tuning."""
    first = first_tuning(method)
    return first.trials[first.chosen] if first.trials else None


def trial_values(method: MethodRecord, goal: Goal) -> Floats:
    """Value of each trial, with the sign changed if larger is better; inf without a result."""
    sign = 1.0 if goal == "min" else -1.0
    values = (
        trial.value if trial.status == "done" else None for trial in first_tuning(method).trials
    )
    return np.asarray([math.inf if value is None else sign * value for value in values])


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
        means = [f"{k}: {show(mean)}" for k, mean in line if k & (k - 1) == 0 or k == len(values)]
        lost = int(np.isinf(values).sum())
        rows.append([method.name, str(len(values)), str(lost), "; ".join(means)])
    if not series:
        return None
    log = wants_log([mean for each in series for mean in each["line"][1]])
    return {
        "id": "best-of-k",
        "kind": "curve",
        "title": "Gain from tuning: best of k trials",
        "alt": f"Expected best {name} of k tuning trials against k. Best of all trials: "
        + "; ".join(f"{row[0]} {row[3].rpartition(': ')[2]} after {row[1]}" for row in rows)
        + ".",
        "notes": [
            "Line: mean over all subsets of k of the trials that were run. Band: middle half of "
            "the subsets. A line begins where every subset contains a trial with a result."
        ],
        "y": {"label": f"best {name} of k", "log": log, "cap": None, "goal": goal},
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
        points = sorted(
            (lr, value, trial is chosen_of(method))
            for trial, value in zip(first_tuning(method).trials, values, strict=True)
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
        searched = show(None) if span is None else f"{show(span[0])} to {show(span[1])}"
        trials = "; ".join(mark["text"] for mark in series[-1]["dots"])
        rows.append([method.name, searched, edge(method) or "inside", trials])
    seen = [value for each in series for value in each["line"][1]]
    return _lr_chart(series, rows, seen, goal, name) if seen else None


def _lr_chart(
    series: list[Series], rows: list[list[str]], seen: Sequence[float], goal: Goal, name: str
) -> Chart:
    flagged = [f"{row[0]}: {row[2]}." for row in rows if row[2] != "inside"]
    lost = any(mark["y"] is None for each in series for mark in each["dots"])
    return {
        "id": "lr",
        "kind": "scatter",
        "title": "Sensitivity to the learning rate",
        "alt": f"Result ({name}) of each tuning trial against its learning rate. "
        + "; ".join(f"{row[0]}, searched {row[1]}: chosen value {row[2]}" for row in rows)
        + ".",
        "notes": [
            "Dots: tuning trials; their other settings differ too. Large mark: the chosen one. "
            "Brackets on the axis: search range.",
            *flagged,
        ],
        "y": {"label": name, "log": wants_log(seen), "cap": None, "goal": goal},
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
    """The search range of the learning rate."""
    for each in first_tuning(method).space:
        if each.name == "lr" and each.low is not None and each.high is not None:
            return [each.low, each.high]
    return None


def edge(method: MethodRecord) -> str:
    """A warning if the chosen learning rate is within 2 % of an end of its range, or empty."""
    span, chosen = lr_range(method), chosen_of(method)
    if span is None or chosen is None or not 0 < span[0] < span[1]:
        return ""
    lr = chosen.config["lr"]
    share = math.log(lr / span[0]) / math.log(span[1] / span[0]) if lr > 0 else 0.0
    side = "lower" if share < 0.02 else "upper" if share > 0.98 else ""
    return side and f"{show(lr)} is at the {side} end of the range, the best may be outside"

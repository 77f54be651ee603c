"""Charts of tuning: what more trials buy, and how much depends on the learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from anyorder.compare.report.charts import Chart, Series, dot, goal_of, known, metric_of, wants_log
from anyorder.compare.report.formats import show
from anyorder.compare.stats.estimators import Floats, Goal, best_of_k
from anyorder.compare.stats.records import fields, listed, methods_of, number


def trials_of(method: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All tuning trials of a method."""
    return [fields(trial) for trial in listed(method.get("tuning"))]


def chosen_of(method: Mapping[str, Any]) -> int | None:
    """Index of the trial whose configuration is reported; None if there was no tuning."""
    chosen = number(method.get("chosen"))
    return int(chosen) if 0 <= chosen < len(trials_of(method)) else None


def trial_values(method: Mapping[str, Any], goal: Goal) -> Floats:
    """What each trial came to, turned so that smaller is better; inf where it had no result."""
    sign = 1.0 if goal == "min" else -1.0
    values = [
        sign * number(trial.get("value")) if trial.get("status", "done") == "done" else math.nan
        for trial in trials_of(method)
    ]
    return np.asarray([value if math.isfinite(value) else math.inf for value in values])


# --- Best of k ---------------------------------------------------------------------------------


def best_of_trials(results: Mapping[str, Any]) -> Chart | None:
    """What the best of ``k`` tuning trials comes to, by ``k``."""
    goal, name = goal_of(results), metric_of(results)
    sign = 1.0 if goal == "min" else -1.0
    series: list[Series] = []
    rows: list[list[str]] = []
    for index, method in enumerate(methods_of(results)):
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
        told = [f"{k}: {show(mean)}" for k, mean in line if k & (k - 1) == 0 or k == len(values)]
        lost = int(np.isinf(values).sum())
        rows.append([str(method.get("name")), str(len(values)), str(lost), "; ".join(told)])
    if not series:
        return None
    log = wants_log([mean for each in series for mean in each["line"][1]])
    return {
        "id": "best-of-k",
        "kind": "curve",
        "title": "What tuning buys: best of k trials",
        "alt": f"Expected best {name} of k tuning trials against k. Best of all trials: "
        + "; ".join(f"{row[0]} {row[3].rpartition(': ')[2]} after {row[1]}" for row in rows)
        + ".",
        "notes": [
            "Line: mean over all subsets of k of the trials that were run. Band: middle half of "
            "the subsets. A line begins where no subset consists of diverged trials only."
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


def learning_rates(results: Mapping[str, Any]) -> Chart | None:
    """Result of each trial against its learning rate, with the ends of what was searched."""
    goal, name = goal_of(results), metric_of(results)
    sign = 1.0 if goal == "min" else -1.0
    series: list[Series] = []
    rows: list[list[str]] = []
    for index, method in enumerate(methods_of(results)):
        values = (sign * trial_values(method, goal)).tolist()
        rates = [number(fields(trial.get("config")).get("lr")) for trial in trials_of(method)]
        points = sorted(
            (lr, value, place == chosen_of(method))
            for place, (lr, value) in enumerate(zip(rates, values, strict=True))
            if lr > 0
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
        told = "; ".join(mark["text"] for mark in series[-1]["dots"])
        rows.append([str(method.get("name")), searched, edge(method) or "inside", told])
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
            "Brackets at the foot: ends of what was searched.",
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


def lr_range(method: Mapping[str, Any]) -> list[float] | None:
    """Both ends of the range in which the learning rate was searched."""
    for each in map(fields, listed(method.get("space"))):
        ends = [number(each.get("low")), number(each.get("high"))]
        if each.get("name") == "lr" and all(map(math.isfinite, ends)):
            return ends
    return None


def edge(method: Mapping[str, Any]) -> str:
    """In words, if the chosen learning rate lies within 2 % of an end of its range; else empty."""
    span, chosen = lr_range(method), chosen_of(method)
    if span is None or chosen is None or not 0 < span[0] < span[1]:
        return ""
    lr = number(fields(trials_of(method)[chosen].get("config")).get("lr"))
    if not lr > 0:
        return ""
    share = math.log(lr / span[0]) / math.log(span[1] / span[0])
    side = "lower" if share < 0.02 else "upper" if share > 0.98 else ""
    return side and f"{show(lr)} lies at the {side} end, the best may lie outside"

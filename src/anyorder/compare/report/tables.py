"""The tables of a report: every number that has a column, with its exact value beside its text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from anyorder.compare.report.charts import goal_of, metric_of
from anyorder.compare.report.formats import show, show_bytes, show_interval, show_seconds
from anyorder.compare.report.tuning import chosen_of, edge, trial_values, trials_of
from anyorder.compare.stats.estimators import Goal, interval, iqm, median
from anyorder.compare.stats.records import (
    cost,
    fields,
    final,
    judged_by,
    listed,
    main_axis,
    methods_of,
    number,
    rates_of,
    runs_of,
    succeeded,
)
from anyorder.compare.stats.verdicts import Pair, Row, Verdict, compare_pairs, summarise
from anyorder.oracle.kinds import ANSWERS

UNITS = {"seconds": "s", "forwards": "forwards", "steps": "steps", "calls": "calls"}


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in one place of a table.

    Attributes:
        text: What people read.
        value: The number behind it, unrounded; None for words and where there is no number.
        small: What stands below in small print, such as an interval.
        method: Number of the method whose mark goes before the text.
        word: A word that decides the colour, such as a verdict.
    """

    text: str
    value: float | None = None
    small: str = ""
    method: int | None = None
    word: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Heads, and rows of cells; ``methods`` are the numbers of the methods of the rows."""

    caption: str
    head: list[str]
    rows: list[list[Cell]]
    methods: list[int] | None = None

    def __post_init__(self) -> None:
        """Every row has a cell for every head."""
        assert all(len(row) == len(self.head) for row in self.rows), self.caption


def _number(value: float | None, text: str | None = None, small: str = "") -> Cell:
    known = value is not None and math.isfinite(value)
    return Cell(show(value) if text is None else text, value if known else None, small)


def _name(index: int, method: Mapping[str, Any], small: str = "") -> Cell:
    return Cell(str(method.get("name")), small=small, method=index)


def _kind(method: Mapping[str, Any]) -> str:
    """What a method lives on, in a word."""
    words = {"0": "values", "1": "gradients", "2": "curvature", "rank": "rankings"}
    return words.get(str(method.get("order")), "")


def _used(table: Table) -> Table:
    """The table without columns in which nothing stands."""
    kept = [
        i
        for i, name in enumerate(table.head)
        if not table.rows or not name or any(row[i].text for row in table.rows)
    ]
    rows = [[row[i] for i in kept] for row in table.rows]
    return Table(table.caption, [table.head[i] for i in kept], rows, table.methods)


def _ordered(results: Mapping[str, Any]) -> list[tuple[int, dict[str, Any], Row]]:
    """Number, record and summary of every method, best first."""
    methods = methods_of(results)
    names = [str(method.get("name")) for method in methods]
    return [(i := names.index(row.name), methods[i], row) for row in summarise(results)]


# --- What came out -----------------------------------------------------------------------------


def leaderboard(results: Mapping[str, Any]) -> Table:
    """Methods, best first: result with interval, verdict, time to the target, time, memory."""
    metric, target = metric_of(results), fields(results.get("problem")).get("target") is not None
    by_metric = judged_by(results)[0] == "metric"
    both = by_metric and metric not in ("loss", "metric")
    ordered = _ordered(results)
    verdicts = _against_first(ordered, compare_pairs(results))
    head = ["", "method", *([metric] if both else []), "validation loss", "against the first"]
    head += ["reached target", f"cost to target ({UNITS[main_axis(results)]})"] * target
    head += ["seconds", "peak memory", "remarks"]
    rows: list[list[Cell]] = []
    for place, (index, method, row) in enumerate(ordered):
        cells = [Cell("" if row.failed else str(place + 1)), _name(index, method, _kind(method))]
        keys = ("metric", "loss") if both else ("loss",)
        cells += [_result(results, method, row, key) for key in keys]
        cells.append(verdicts[row.name])
        if target:
            hits = None if row.success is None else round(row.success * row.runs)
            cells.append(_number(row.success, show(None) if hits is None else f"{hits}/{row.runs}"))
            never = row.target_cost is not None and math.isinf(row.target_cost)
            cells.append(_number(row.target_cost, "never" if never else None))
        cells.append(_number(row.seconds, show(row.seconds)))
        cells.append(_number(row.peak_bytes or None, show_bytes(row.peak_bytes or None)))
        cells.append(Cell(row.note))
        rows.append(cells)
    return _used(Table("Leaderboard", head, rows, [index for index, _, _ in ordered]))


def _result(results: Mapping[str, Any], method: Mapping[str, Any], row: Row, key: str) -> Cell:
    """An average with its interval; where too many runs were lost for one, the median."""
    value = row.metric if key == "metric" else row.final_loss
    low, high = (row.metric_low, row.metric_high) if key == "metric" else (row.low, row.high)
    if row.failed or math.isnan(value):
        return Cell(show(None))
    if math.isfinite(value):
        return _number(value, small=show_interval(low, high))
    goal = goal_of(results) if key == "metric" else "min"
    middle = median([final(run, key, goal) for run in runs_of(method)])
    return Cell("runs lost", small=f"median {show(middle)}", word="diverged")


def _turned(pair: Pair) -> Pair:
    """The same pair, seen from the other side."""
    words: dict[str, Verdict] = {"better": "worse", "worse": "better"}
    return replace(pair, a=pair.b, b=pair.a, verdict=words.get(pair.verdict, pair.verdict))


def _verdict(pair: Pair) -> Cell:
    return Cell(pair.verdict, word=pair.verdict, small=pair.why)


def _against_first(
    ordered: Sequence[tuple[int, dict[str, Any], Row]], pairs: Sequence[Pair]
) -> dict[str, Cell]:
    """What each method is, compared with the first."""
    first = ordered[0][2] if ordered else Row("")
    found = {first.name: Cell("" if first.failed else "first", word="first")}
    for pair in (*pairs, *map(_turned, pairs)):
        if pair.b == first.name and not first.failed:
            found[pair.a] = _verdict(pair)
    return {row.name: found.get(row.name, Cell("")) for _, _, row in ordered}


def matrix(results: Mapping[str, Any]) -> Table:
    """Verdicts of every method (row) against every other (column), best first."""
    pairs = compare_pairs(results)
    found = {(pair.a, pair.b): pair for pair in (*pairs, *map(_turned, pairs))}
    ordered = _ordered(results)
    names = [row.name for _, _, row in ordered]
    rows = [
        [
            _name(index, method),
            *(
                Cell(pair.verdict, word=pair.verdict) if pair else Cell("")
                for other in names
                for pair in [found.get((row.name, other))]
            ),
        ]
        for index, method, row in ordered
    ]
    return Table("Verdicts", ["", *names], rows, [index for index, _, _ in ordered])


def differences(results: Mapping[str, Any]) -> Table:
    """All pairs of methods, with what the verdict goes by."""
    metric = metric_of(results) if judged_by(results)[0] == "metric" else "loss"
    rows = [
        [
            Cell(pair.a),
            _verdict(pair),
            Cell(pair.b),
            _number(
                pair.difference,
                small=show_interval(pair.interval.low, pair.interval.high) if pair.interval else "",
            ),
            _number(pair.p),
            _number(pair.adjusted),
            _number(pair.seeds),
        ]
        for pair in compare_pairs(results)
    ]
    head = ["method", "is", "than", f"mean difference in {metric}", "p", "p after Holm", "seeds"]
    return Table("Differences between methods", head, rows)


def test_data(results: Mapping[str, Any]) -> Table | None:
    """Results on data that took part in no choice."""
    per_method = [
        (index, method, [fields(run.get("test")) for run in runs_of(method) if succeeded(run)])
        for index, method, _ in _ordered(results)
    ]
    keys = list(dict.fromkeys(key for _, _, found in per_method for each in found for key in each))
    if not keys:
        return None
    rows: list[list[Cell]] = []
    for index, method, found in per_method:
        cells = [_name(index, method)]
        for key in keys:
            values = [v for each in found if math.isfinite(v := number(each.get(key)))]
            spread = interval(values) if values else None
            ends = show_interval(spread.low, spread.high) if spread else ""
            cells.append(_number(iqm(values) if values else None, small=ends))
        lost = len(runs_of(method)) - len(found)
        cells.append(_number(lost))
        rows.append(cells)
    head = ["method", *(f"test {key}" for key in keys), "runs without result, left out here"]
    return Table("Test data", head, rows, [index for index, _, _ in per_method])


# --- What it cost ------------------------------------------------------------------------------


def ledger(results: Mapping[str, Any]) -> Table:
    """What one run of each method took: medians over runs, largest for memory."""
    words = {answer.name: answer.many for answer in ANSWERS}
    kinds = [answer.name for answer in ANSWERS if not answer.composite]
    # A gradient of a Composite holds one in the outputs; only other numbers say more.
    calls = [row.calls for _, _, row in _ordered(results)]
    if any(
        each.get("output_grads") and each["output_grads"] != each.get("grads") for each in calls
    ):
        kinds.append("output_grads")
    head = ["method", *(words[kind] for kind in kinds), "forwards"]
    head += ["steps", "seconds", "in the problem", "warm-up", "peak memory", "state"]
    rows: list[list[Cell]] = []
    rates = rates_of(results)
    for index, method, row in _ordered(results):
        ends = [fields((listed(run.get("curve")) or [{}])[-1]) for run in runs_of(method)]
        largest = {
            key: max(
                (number(run.get(key)) for run in runs_of(method) if run.get(key)), default=None
            )
            for key in ("base_bytes", "warmup_seconds")
        }
        share, base = row.oracle_share, largest["base_bytes"]
        before = f"{show_bytes(base)} before" if base else ""
        rows.append(
            [
                _name(index, method),
                *(_number(row.calls.get(kind)) for kind in kinds),
                _number(_middle([cost(end, "forwards", rates) for end in ends])),
                _number(_middle([cost(end, "steps") for end in ends])),
                _number(row.seconds),
                _number(share, None if share is None else f"{share:.0%}"),
                _number(largest["warmup_seconds"], show_seconds(largest["warmup_seconds"])),
                _number(row.peak_bytes or None, show_bytes(row.peak_bytes or None), before),
                _number(row.state_bytes, show_bytes(row.state_bytes)),
            ]
        )
    return Table("Ledger of one run", head, rows, [index for index, _, _ in _ordered(results)])


def _middle(values: Sequence[float]) -> float | None:
    finite = sorted(value for value in values if math.isfinite(value))
    return (finite[(len(finite) - 1) // 2] + finite[len(finite) // 2]) / 2 if finite else None


# --- How it came about -------------------------------------------------------------------------


def tuning(results: Mapping[str, Any]) -> Table | None:
    """Trials of each method: how many, at what cost, how good the default and the best were."""
    goal, metric, axis = goal_of(results), metric_of(results), main_axis(results)
    sign = 1.0 if goal == "min" else -1.0
    rows: list[list[Cell]] = []
    numbers: list[int] = []
    for index, method in enumerate(methods_of(results)):
        trials, values = trials_of(method), trial_values(method, goal).tolist()
        if not trials:
            continue
        chosen = chosen_of(method)
        config = {} if chosen is None else fields(trials[chosen].get("config"))
        spent = [number(fields(trial.get("cost")).get(axis)) for trial in trials]
        known = [value for value in spent if math.isfinite(value)]
        rows.append(
            [
                _name(index, method),
                _number(len(trials)),
                _number(sum(map(math.isinf, values))),
                _number(math.fsum(known) if known else None),
                _number(sign * values[0], "no result" if math.isinf(values[0]) else None),
                _number(sign * min(values), "no result" if math.isinf(min(values)) else None),
                _by_default(method, *judged_by(results)),
                Cell(", ".join(f"{name} {_setting(value)}" for name, value in config.items())),
                Cell(edge(method) and f"lr {edge(method)}", word="edge"),
            ]
        )
        numbers.append(index)
    head = ["method", "trials", "without result", f"cost ({UNITS[axis]})"]
    head += [f"{metric} of the default", f"best {metric}", "default on report seeds"]
    head += ["chosen", "on the edge"]
    return _used(Table("Tuning", head, rows, numbers)) if rows else None


def _by_default(method: Mapping[str, Any], key: str, goal: Goal) -> Cell:
    """What the default configuration comes to on the report seeds, if it was run there."""
    runs = [fields(run) for run in listed(method.get("default_runs"))]
    if not runs:
        return Cell("")
    values = [final(run, key, goal) for run in runs]
    spread = interval(values)
    ends = show_interval(spread.low, spread.high) if spread else ""
    return _number(iqm(values), None if math.isfinite(iqm(values)) else "runs lost", ends)


def _setting(value: Any) -> str:
    return (
        show(value)
        if isinstance(value, int | float) and not isinstance(value, bool)
        else str(value)
    )


def losses(results: Mapping[str, Any]) -> Table | None:
    """Every run and trial that diverged or failed, and why."""
    rows: list[list[Cell]] = []
    numbers: list[int] = []
    for index, method in enumerate(methods_of(results)):
        told: list[list[Cell]] = []
        for run in runs_of(method):
            if not succeeded(run):
                what = f"seed {run.get('seed')}"
                told.append(_loss(run, what, len(listed(run.get("curve")))))
        for place, trial in enumerate(trials_of(method)):
            if trial.get("status", "done") != "done":
                config = fields(trial.get("config"))
                with_ = ", ".join(f"{name} {_setting(value)}" for name, value in config.items())
                told.append(_loss(trial, f"tuning trial {place}: {with_ or 'default'}", None))
        if method.get("failed") and not told:
            told.append([Cell(""), Cell("failed", word="failed"), Cell(str(method["failed"]))])
        rows += [[_name(index, method), *cells] for cells in told]
        numbers += [index] * len(told)
    head = ["method", "run", "ended", "reason"]
    return Table("What diverged or failed", head, rows, numbers) if rows else None


def _loss(run: Mapping[str, Any], what: str, evaluations: int | None) -> list[Cell]:
    status = str(run.get("status") or "no result")
    reason = str(run.get("error") or run.get("stop_reason") or "no reason was recorded")
    after = "" if evaluations is None else f"after {evaluations} evaluations"
    return [Cell(what, small=after), Cell(status, word=status), Cell(reason)]


def rates(results: Mapping[str, Any]) -> Table | None:
    """Price of each answer in forward passes, nominal beside measured."""
    table, costs = fields(results.get("rates")), fields(fields(results.get("probe")).get("costs"))
    nominal, measured = fields(table.get("nominal")), fields(table.get("measured"))
    words = {
        "values": "value",
        "grads": "gradient",
        "products": "product",
        "ranked": "ranked point",
    }
    rows: list[list[Cell]] = []
    for kind in dict.fromkeys([*nominal, *measured]):
        found = fields(costs.get(words[kind]))
        seconds, needed = number(found.get("seconds")), number(found.get("bytes"))
        rows.append(
            [
                Cell(words[kind]),
                _number(number(nominal.get(kind))),
                _number(number(measured.get(kind)), show(number(measured.get(kind)), 3)),
                _number(seconds, show_seconds(seconds)),
                _number(needed, show_bytes(needed)),
            ]
        )
    head = ["answer", "nominal price", "measured price", "seconds", "memory"]
    return Table("Price of an answer in forward passes", head, rows) if rows else None

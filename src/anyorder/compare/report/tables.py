"""The tables of a report: cells with formatted text and the exact value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from anyorder.compare.report.formats import show, show_bytes, show_interval, show_seconds
from anyorder.compare.report.tuning import chosen_of, edge, first_tuning, trial_values
from anyorder.compare.run.records import RunRecord
from anyorder.compare.stats.estimators import Goal, Interval, interval, iqm, median
from anyorder.compare.stats.records import Axis, Judged, final, judged_by, main_axis, succeeded
from anyorder.compare.stats.verdicts import Pair, Row, Verdict, compare_pairs, summarise
from anyorder.compare.store.schema import MethodRecord, Results, Trial
from anyorder.oracle.kinds import ANSWERS

UNITS: dict[Axis, str] = {
    "seconds": "s",
    "forwards": "forwards",
    "steps": "steps",
    "calls": "calls",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: The displayed text.
        value: The unrounded number; None if there is none.
        small: Small print below, such as an interval.
        method: Index of the method whose mark precedes the text.
        word: A word that selects the colour, such as a verdict.
    """

    text: str
    value: float | None = None
    small: str = ""
    method: int | None = None
    word: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Column heads and rows of cells; ``methods`` are the method indices of the rows."""

    caption: str
    head: list[str]
    rows: list[list[Cell]]
    methods: list[int] | None = None

    def __post_init__(self) -> None:
        """Check that every row has one cell per head."""
        assert all(len(row) == len(self.head) for row in self.rows), self.caption


def _number(value: float | None, text: str | None = None, small: str = "") -> Cell:
    known = value is not None and math.isfinite(value)
    return Cell(show(value) if text is None else text, value if known else None, small)


def _name(index: int, method: MethodRecord, small: str = "") -> Cell:
    return Cell(method.name, small=small, method=index)


def _ends(spread: Interval | None) -> str:
    return "" if spread is None else show_interval(spread.low, spread.high)


def _kind(method: MethodRecord) -> str:
    """The kind of information that a method uses."""
    words = {"0": "values", "1": "gradients", "2": "curvature", "rank": "rankings"}
    return words[str(method.order)]


def _used(table: Table) -> Table:
    """The table without empty columns."""
    kept = [
        i
        for i, name in enumerate(table.head)
        if not table.rows or not name or any(row[i].text for row in table.rows)
    ]
    rows = [[row[i] for i in kept] for row in table.rows]
    return Table(table.caption, [table.head[i] for i in kept], rows, table.methods)


def _ordered(results: Results) -> list[tuple[int, MethodRecord, Row]]:
    """Index, record and summary of every method, best first."""
    names = [method.name for method in results.methods]
    return [(i := names.index(row.name), results.methods[i], row) for row in summarise(results)]


# --- Results -----------------------------------------------------------------------------------


def leaderboard(results: Results) -> Table:
    """Methods, best first: result with interval, verdict, time to the target, time, memory."""
    metric, target = results.problem.metric, results.problem.target is not None
    both = judged_by(results)[0] == "metric" and metric != "loss"
    ordered = _ordered(results)
    verdicts = _against_first(ordered, compare_pairs(results))
    head = ["", "method", *([metric] if both else []), "validation loss", "against the first"]
    head += ["reached target", f"cost to target ({UNITS[main_axis(results)]})"] * target
    head += ["seconds", "peak memory", "remarks"]
    rows: list[list[Cell]] = []
    for place, (index, method, row) in enumerate(ordered):
        cells = [Cell("" if row.failed else str(place + 1)), _name(index, method, _kind(method))]
        keys: tuple[Judged, ...] = ("metric", "loss") if both else ("loss",)
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


def _result(results: Results, method: MethodRecord, row: Row, key: Judged) -> Cell:
    """An average with its interval, or the median if too many runs have no result."""
    value = row.metric if key == "metric" else row.final_loss
    low, high = (row.metric_low, row.metric_high) if key == "metric" else (row.low, row.high)
    if row.failed or math.isnan(value):
        return Cell(show(None))
    if math.isfinite(value):
        return _number(value, small=show_interval(low, high))
    goal: Goal = results.problem.goal if key == "metric" else "min"
    middle = median([final(run, key, goal) for run in method.runs])
    return Cell("runs lost", small=f"median {show(middle)}", word="diverged")


def _turned(pair: Pair) -> Pair:
    """The same pair with ``a`` and ``b`` swapped."""
    words: dict[str, Verdict] = {"better": "worse", "worse": "better"}
    return replace(pair, a=pair.b, b=pair.a, verdict=words.get(pair.verdict, pair.verdict))


def _verdict(pair: Pair) -> Cell:
    return Cell(pair.verdict, word=pair.verdict, small=pair.why)


def _against_first(
    ordered: Sequence[tuple[int, MethodRecord, Row]], pairs: Sequence[Pair]
) -> dict[str, Cell]:
    """The verdict of each method against the first."""
    first = ordered[0][2] if ordered else Row("")
    found = {first.name: Cell("" if first.failed else "first", word="first")}
    for pair in (*pairs, *map(_turned, pairs)):
        if pair.b == first.name and not first.failed:
            found[pair.a] = _verdict(pair)
    return {row.name: found.get(row.name, Cell("")) for _, _, row in ordered}


def matrix(results: Results) -> Table:
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


def differences(results: Results) -> Table:
    """All pairs of methods, with the numbers behind the verdict."""
    metric = results.problem.metric if judged_by(results)[0] == "metric" else "loss"
    rows = [
        [
            Cell(pair.a),
            _verdict(pair),
            Cell(pair.b),
            _number(pair.difference, small=_ends(pair.interval)),
            _number(pair.p),
            _number(pair.adjusted),
            _number(pair.seeds),
        ]
        for pair in compare_pairs(results)
    ]
    head = ["method", "is", "than", f"mean difference in {metric}", "p", "p after Holm", "seeds"]
    return Table("Differences between methods", head, rows)


def test_data(results: Results) -> Table | None:
    """Results on test data, which no choice has used."""
    per_method = [
        (index, method, [run.test or {} for run in method.runs if succeeded(run)])
        for index, method, _ in _ordered(results)
    ]
    keys = list(dict.fromkeys(key for _, _, found in per_method for each in found for key in each))
    if not keys:
        return None
    rows: list[list[Cell]] = []
    for index, method, found in per_method:
        cells = [_name(index, method)]
        for key in keys:
            values = [value for each in found if (value := each.get(key)) is not None]
            ends = _ends(interval(values)) if values else ""
            cells.append(_number(iqm(values) if values else None, small=ends))
        cells.append(_number(len(method.runs) - len(found)))
        rows.append(cells)
    head = ["method", *(f"test {key}" for key in keys), "runs without result (excluded)"]
    return Table("Test data", head, rows, [index for index, _, _ in per_method])


# --- Cost --------------------------------------------------------------------------------------


def ledger(results: Results) -> Table:
    """Cost of one run of each method: medians over runs, maxima for memory."""
    words = {answer.name: answer.many for answer in ANSWERS}
    kinds = [answer.name for answer in ANSWERS if not answer.composite]
    ordered = _ordered(results)
    # A gradient of a Composite includes one in the outputs: show only different counts.
    if any(
        row.calls and 0 < row.calls["output_grads"] != row.calls["grads"] for *_, row in ordered
    ):
        kinds.append("output_grads")
    head = ["method", *(words[kind] for kind in kinds), "forwards"]
    head += ["steps", "seconds", "in the problem", "warm-up", "peak memory", "state"]
    rows: list[list[Cell]] = []
    for index, method, row in ordered:
        ends = [run.curve[-1] for run in method.runs if run.curve]
        warmup = max((run.warmup_seconds for run in method.runs), default=0.0)
        base = max((run.base_bytes for run in method.runs), default=0)
        share = row.oracle_share
        before = f"{show_bytes(base)} before" if base else ""
        rows.append(
            [
                _name(index, method),
                *(_number(row.calls.get(kind)) for kind in kinds),
                _number(median([end.forwards for end in ends]) if ends else None),
                _number(median([end.steps for end in ends]) if ends else None),
                _number(row.seconds),
                _number(share, None if share is None else f"{share:.0%}"),
                _number(warmup or None, show_seconds(warmup or None)),
                _number(row.peak_bytes or None, show_bytes(row.peak_bytes or None), before),
                _number(row.state_bytes, show_bytes(row.state_bytes)),
            ]
        )
    return Table("Ledger of one run", head, rows, [index for index, _, _ in ordered])


# --- Tuning and failures -----------------------------------------------------------------------


def tuning(results: Results) -> Table | None:
    """Trials of each method: number, cost, and results of the default and the best."""
    goal, metric, axis = results.problem.goal, results.problem.metric, main_axis(results)
    sign = 1.0 if goal == "min" else -1.0
    rows: list[list[Cell]] = []
    numbers: list[int] = []
    for index, method in enumerate(results.methods):
        chosen = chosen_of(method)
        if chosen is None:
            continue
        values = trial_values(method, goal).tolist()
        spent = [_spent(trial, axis) for trial in first_tuning(method).trials]
        rows.append(
            [
                _name(index, method),
                _number(len(values)),
                _number(sum(map(math.isinf, values))),
                _number(math.fsum(spent)),
                _number(sign * values[0], "no result" if math.isinf(values[0]) else None),
                _number(sign * min(values), "no result" if math.isinf(min(values)) else None),
                _by_default(method, *judged_by(results)),
                Cell(_settings(chosen.config)),
                Cell(edge(method) and f"lr {edge(method)}", word="edge"),
            ]
        )
        numbers.append(index)
    head = ["method", "trials", "without result", f"cost ({UNITS[axis]})"]
    head += [f"{metric} of the default", f"best {metric}", "default on report seeds"]
    head += ["chosen", "at the edge"]
    return _used(Table("Tuning", head, rows, numbers)) if rows else None


def _spent(trial: Trial, axis: Axis) -> float:
    """The cost of a trial; trials do not store their call counts."""
    return float(getattr(trial.cost, axis))


def _by_default(method: MethodRecord, key: Judged, goal: Goal) -> Cell:
    """Result of the default configuration on the report seeds, if it was run."""
    if not method.default_runs:
        return Cell("")
    values = [final(run, key, goal) for run in method.default_runs]
    middle = iqm(values)
    return _number(middle, None if math.isfinite(middle) else "runs lost", _ends(interval(values)))


def _settings(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_setting(value)}" for name, value in config.items())


def _setting(value: Any) -> str:
    return (
        show(value)
        if isinstance(value, int | float) and not isinstance(value, bool)
        else str(value)
    )


def losses(results: Results) -> Table | None:
    """Every run and trial that diverged or failed, and why."""
    rows: list[list[Cell]] = []
    numbers: list[int] = []
    for index, method in enumerate(results.methods):
        lost = [
            _loss(run, f"seed {run.seed}", f"after {len(run.curve)} evaluations")
            for run in method.runs
            if not succeeded(run)
        ]
        lost += [
            _loss(trial, f"tuning trial {trial.index}: {_settings(trial.config) or 'default'}")
            for trial in first_tuning(method).trials
            if trial.status != "done"
        ]
        if method.failed and not lost:
            lost.append([Cell(""), Cell("failed", word="failed"), Cell(method.failed)])
        rows += [[_name(index, method), *cells] for cells in lost]
        numbers += [index] * len(lost)
    head = ["method", "run", "ended", "reason"]
    return Table("Divergence and failures", head, rows, numbers) if rows else None


def _loss(run: RunRecord | Trial, what: str, after: str = "") -> list[Cell]:
    reason = run.error or "unknown reason"
    return [Cell(what, small=after), Cell(run.status, word=run.status), Cell(reason)]


def rates(results: Results) -> Table:
    """Price of each answer in forward passes, nominal and measured."""
    words = {
        "values": "value",
        "grads": "gradient",
        "products": "product",
        "ranked": "ranked point",
    }
    rows: list[list[Cell]] = []
    for kind, price in results.rates.nominal.items():
        measured = results.rates.measured[kind]
        cost = results.pilot.costs.get(words[kind])
        rows.append(
            [
                Cell(words[kind]),
                _number(price),
                _number(measured, show(measured, 3)),
                _number(cost and cost.seconds, show_seconds(cost and cost.seconds)),
                _number(cost and cost.bytes, show_bytes(cost and cost.bytes)),
            ]
        )
    head = ["answer", "nominal price", "measured price", "seconds", "memory"]
    return Table("Price of an answer in forward passes", head, rows)

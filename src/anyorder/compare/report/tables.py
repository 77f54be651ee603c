"""The tables of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from anyorder.compare.report.cells import Cell, Table, best_first, bounds, named, number, used
from anyorder.compare.report.formats import plural, show, show_bytes, show_seconds
from anyorder.compare.report.tuning import chosen_of, edge
from anyorder.compare.run.records import RunRecord
from anyorder.compare.stats.estimators import interval, iqm, median
from anyorder.compare.stats.leaderboard import Row
from anyorder.compare.stats.records import (
    Axis,
    Criterion,
    criteria,
    judged_by,
    main_axis,
    succeeded,
    unit_of,
    units,
)
from anyorder.compare.stats.targets import ladder, main_target, time_to_target
from anyorder.compare.stats.tuning import (
    search_cost,
    searched,
    three_results,
    trial_values,
    trials_of,
)
from anyorder.compare.stats.verdicts import Pair, compare_costs, compare_pairs, resolution
from anyorder.compare.store.schema import MethodRecord, Results, Trial
from anyorder.oracle.kinds import ANSWERS

UNITS: dict[Axis, str] = {
    "seconds": "s",
    "forwards": "forwards",
    "steps": "steps",
    "calls": "calls",
}


def _kind(method: MethodRecord) -> str:
    """The kind of information that a method uses."""
    words = {"0": "values", "1": "gradients", "2": "curvature", "rank": "rankings"}
    return words[str(method.order)]


# --- Results -----------------------------------------------------------------------------------


def leaderboard(results: Results) -> Table:
    """Methods, best first: results with intervals, verdict, cost to the target, time, memory."""
    target, axis = main_target(results), UNITS[main_axis(results)]
    shown = criteria(results)
    ordered = best_first(results)
    verdicts = _against_first(ordered, _all_pairs(results))
    head = ["", "method", *(each.name for each in shown), "against the first"]
    head += ["reached target", f"cost to target ({axis})"] * (target is not None)
    head += ["seconds", "memory added", "not dominated", "remarks"]
    places = iter(range(1, len(ordered) + 1))
    rows: list[list[Cell]] = []
    for index, method, row in ordered:
        cells = [Cell("" if row.failed or row.twin else str(next(places)))]
        cells.append(named(index, method, _kind(method)))
        cells += [_result(method, row, each) for each in shown]
        cells.append(verdicts[row.name])
        if target is not None:
            hits = None if row.success is None else round(row.success * row.runs)
            cells.append(number(row.success, show(None) if hits is None else f"{hits}/{row.runs}"))
            never = row.target_cost is not None and math.isinf(row.target_cost)
            cells.append(number(row.target_cost, "never" if never else None))
        cells.append(number(row.seconds, show(row.seconds)))
        cells.append(number(row.run_bytes, show_bytes(row.run_bytes)))
        cells.append(Cell("yes" if row.pareto else ""))
        cells.append(Cell(row.note))
        rows.append(cells)
    return used(Table("Leaderboard", head, rows, [index for index, _, _ in ordered]))


def without_remarks(board: Table) -> tuple[Table, list[str], list[str]]:
    """The leaderboard without its last column, remarks on single rows, and those on all rows."""
    last = board.head[-1] == "remarks"
    said = [row[-1].text.split("; ") if last and row[-1].text else [] for row in board.rows]
    shared = [part for part in said[0] if all(part in each for each in said)] if said[1:] else []
    single = ["; ".join(part for part in each if part not in shared) for each in said]
    if not last:
        return board, single, shared
    rows = [row[:-1] for row in board.rows]
    return Table(board.caption, board.head[:-1], rows, board.methods), single, shared


def _result(method: MethodRecord, row: Row, criterion: Criterion) -> Cell:
    """An average with its interval; where too many runs were lost for one, the median."""
    if row.failed:
        return Cell(show(None))
    blocks = units(method.runs, criterion.of)
    value = iqm(blocks)
    if math.isfinite(value):
        return number(value, small=bounds(interval(blocks)))
    middle = median([criterion.of(run) for run in method.runs])
    return Cell("runs lost", small=f"median {show(middle)}", word="diverged")


def _verdict(pair: Pair) -> Cell:
    return Cell(pair.verdict, word=pair.verdict, small=pair.why or pair.advice)


def _all_pairs(results: Results) -> list[Pair]:
    """All pairs, and that of the baseline with its twin."""
    again = resolution(results)
    return [*compare_pairs(results), *([again] if again else [])]


def _against_first(
    ordered: Sequence[tuple[int, MethodRecord, Row]], pairs: Sequence[Pair]
) -> dict[str, Cell]:
    """What each method is, compared with the first."""
    first = next((row for _, _, row in ordered if not row.twin), Row(""))
    found = {first.name: Cell("" if first.failed else "first", word="first")}
    for pair in (*pairs, *(pair.turned() for pair in pairs)):
        if pair.b == first.name and not first.failed:
            found[pair.a] = _verdict(pair)
    return {row.name: found.get(row.name, Cell("")) for _, _, row in ordered}


def matrix(results: Results) -> Table:
    """Verdicts of every method (row) against every other (column), best first."""
    pairs = _all_pairs(results)
    found = {(pair.a, pair.b): pair for pair in (*pairs, *(pair.turned() for pair in pairs))}
    ordered = best_first(results)
    names = [row.name for _, _, row in ordered]
    rows = [
        [
            named(index, method),
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
    """All pairs of methods, with the numbers behind the verdict on quality."""
    what = f"difference in {judged_by(results).name}"
    return _pairs("Differences between methods", what, _all_pairs(results), unit_of(results))


def cost_differences(results: Results) -> Table | None:
    """All pairs of methods, with the numbers behind the verdict on cost; None without a target."""
    target, pairs = main_target(results), compare_costs(results)
    if target is None:
        return None
    wanted = f"{results.problem.metric} {show(target.value)}, {target.source}"
    what = f"ratio of cost in {UNITS[main_axis(results)]}"
    return _pairs(f"Cost to the target: {wanted}", what, pairs, unit_of(results))


def _pairs(caption: str, what: str, pairs: Sequence[Pair], unit: str) -> Table:
    rows = [
        [
            Cell(pair.a),
            _verdict(pair),
            Cell(pair.b),
            number(pair.difference, small=bounds(pair.interval)),
            number(pair.p),
            number(pair.adjusted),
            number(pair.units),
        ]
        for pair in pairs
    ]
    return Table(caption, ["method", "is", "than", what, "p", "p after Holm", f"{unit}s"], rows)


def rungs(results: Results) -> Table | None:
    """Expected running time to each target of the ladder, and how many runs reached it."""
    targets, axis, goal = ladder(results), main_axis(results), results.problem.goal
    if not targets:
        return None
    ordered = [(index, method) for index, method, _ in best_first(results) if method.runs]
    rows: list[list[Cell]] = []
    for index, method in ordered:
        found = [time_to_target(method.runs, each.value, goal, axis) for each in targets]
        cells = [
            number(
                reach.expected if any(reach.hit) else None,
                None if any(reach.hit) else "never",
                f"{sum(reach.hit)}/{len(reach.hit)} runs",
            )
            for reach in found
        ]
        rows.append([named(index, method), *cells])
    head = ["method", *(f"{results.problem.metric} {show(each.value)}" for each in targets)]
    caption = f"Cost in {UNITS[axis]} to targets set by the tuned {results.baseline}"
    return Table(caption, head, rows, [index for index, _ in ordered])


def three(results: Results) -> Table | None:
    """Three results per method: default, expected best of k, tuning charged."""
    found = {each.method: each for each in three_results(results)}
    ordered = [(i, method) for i, method, _ in best_first(results) if method.name in found]
    name, metric, axis = judged_by(results).name, results.problem.metric, UNITS[main_axis(results)]
    rows: list[list[Cell]] = []
    for index, method in ordered:
        each = found[method.name]
        best = "; ".join(f"{k}: {show(value)}" for k, value in each.best_of.items())
        rows.append(
            [
                named(index, method),
                number(each.default, "" if math.isnan(each.default) else None),
                Cell(best),
                number(each.tuned),
                number(each.search),
                number(each.charged, "never" if math.isinf(each.charged) else None),
            ]
        )
    head = ["method", f"{name} by default", f"expected best validation {metric} of k trials"]
    head += [f"{name} tuned", f"cost of one tuning ({axis})", f"tuning and cost to target ({axis})"]
    numbers = [index for index, _ in ordered]
    return used(Table("Default, best of k, tuning charged", head, rows, numbers)) if rows else None


def test_data(results: Results) -> Table | None:
    """Results on test data, which no choice has used."""
    per_method = [
        (index, method, [run.test or {} for run in method.runs if succeeded(run)])
        for index, method, _ in best_first(results)
    ]
    keys = list(dict.fromkeys(key for _, _, found in per_method for each in found for key in each))
    if not keys:
        return None
    rows: list[list[Cell]] = []
    for index, method, found in per_method:
        cells = [named(index, method)]
        for key in keys:
            values = [value for each in found if (value := each.get(key)) is not None]
            cells.append(number(iqm(values) if values else None))
        cells.append(number(len(method.runs) - len(found)))
        rows.append(cells)
    head = ["method", *(f"test {key}" for key in keys), "runs without result (excluded)"]
    return Table("Test data", head, rows, [index for index, _, _ in per_method])


# --- Cost --------------------------------------------------------------------------------------


def ledger(results: Results) -> Table:
    """Cost of one run of each method: medians over runs, maxima for memory."""
    words = {answer.name: answer.many for answer in ANSWERS}
    kinds = [answer.name for answer in ANSWERS if not answer.composite]
    ordered = best_first(results)
    if not any(row.calls and row.calls.get("jvps") for *_, row in ordered):
        kinds.remove("jvps")
    # A gradient of a Composite includes one in the outputs: show only different counts.
    if any(
        row.calls and 0 < row.calls["output_grads"] != row.calls["grads"] for *_, row in ordered
    ):
        kinds.append("output_grads")
    head = ["method", *(words[kind] for kind in kinds), "forwards"]
    head += ["steps", "seconds", "in the problem", "warm-up", "memory added", "state"]
    rows: list[list[Cell]] = []
    for index, method, row in ordered:
        ends = [run.curve[-1] for run in method.runs if run.curve]
        warmup = max((run.warmup_seconds for run in method.runs), default=0.0)
        peak = max((run.peak_bytes for run in method.runs), default=0)
        share = row.oracle_share
        whole = f"peak {show_bytes(peak)}" if peak else ""
        rows.append(
            [
                named(index, method),
                *(number(row.calls.get(kind)) for kind in kinds),
                number(median([end.forwards for end in ends]) if ends else None),
                number(median([end.steps for end in ends]) if ends else None),
                number(row.seconds),
                number(share, None if share is None else f"{share:.0%}"),
                number(warmup or None, show_seconds(warmup or None)),
                number(row.run_bytes, show_bytes(row.run_bytes), whole),
                number(row.state_bytes, show_bytes(row.state_bytes)),
            ]
        )
    return Table("Ledger of one run", head, rows, [index for index, _, _ in ordered])


# --- Tuning and failures -----------------------------------------------------------------------


def tuning(results: Results) -> Table | None:
    """Tunings of each method: trials, cost, how good the default and the best were."""
    goal, metric, axis = results.problem.goal, results.problem.metric, main_axis(results)
    sign = 1.0 if goal == "min" else -1.0
    rows: list[list[Cell]] = []
    numbers: list[int] = []
    for index, method in enumerate(results.methods):
        if not (chosen := chosen_of(method)):
            continue
        values = trial_values(method, goal).tolist()
        rows.append(
            [
                named(index, method),
                number(len(method.tunings)),
                number(len(values)),
                number(sum(map(math.isinf, values))),
                number(search_cost(method, axis) * len(method.tunings)),
                number(sign * values[0], "no result" if math.isinf(values[0]) else None),
                number(sign * min(values), "no result" if math.isinf(min(values)) else None),
                Cell("; ".join(_settings(trial.config) for trial in chosen)),
                Cell(edge(method), word="edge"),
            ]
        )
        numbers.append(index)
    head = ["method", "tunings", "trials", "without result", f"cost ({UNITS[axis]})"]
    head += [f"{metric} of the default", f"best {metric}", "chosen", "at the edge"]
    return used(Table("Tuning", head, rows, numbers)) if rows else None


def spaces(results: Results) -> Table | None:
    """The search space of each method, and the source of each range."""
    rows: list[list[Cell]] = []
    numbers: list[int] = []
    for index, method in enumerate(results.methods):
        for each in searched(method):
            ends = f"{show(each.low)} to {show(each.high)}"
            what = ", ".join(map(str, each.choices)) if each.choices else ends
            cells = [Cell(each.name), Cell(each.kind), Cell(what + ", extended" * each.extended)]
            rows.append([named(index, method), *cells, Cell(each.source)])
            numbers.append(index)
    head = ["method", "setting", "scale", "range", "source"]
    return Table("Search spaces", head, rows, numbers) if rows else None


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
            _loss(run, f"seed {run.seed}", f"after {plural(len(run.curve), 'evaluation')}")
            for run in method.runs
            if not succeeded(run)
        ]
        lost += [
            _loss(trial, f"tuning trial {trial.index}: {_settings(trial.config) or 'default'}")
            for trial in trials_of(method)
            if trial.status != "done"
        ]
        if method.failed and not lost:
            lost.append([Cell(""), Cell("failed", word="failed"), Cell(method.failed)])
        rows += [[named(index, method), *cells] for cells in lost]
        numbers += [index] * len(lost)
    head = ["method", "run", "ended", "reason"]
    return Table("Divergence and failures", head, rows, numbers) if rows else None


def _loss(run: RunRecord | Trial, what: str, after: str = "") -> list[Cell]:
    reason = run.error or "unknown reason"
    return [Cell(what, small=after), Cell(run.status, word=run.status), Cell(reason)]


def rates(results: Results) -> Table:
    """Price of each answer in forward passes, nominal and measured."""
    words = {answer.name: answer.one for answer in ANSWERS} | {"products": "product"}
    rows: list[list[Cell]] = []
    for kind, price in results.rates.nominal.items():
        measured = results.rates.measured.get(kind)
        cost = results.pilot.costs.get(words[kind])
        rows.append(
            [
                Cell(words[kind]),
                number(price),
                number(measured, show(measured, 3)),
                number(cost and cost.seconds, show_seconds(cost and cost.seconds)),
                number(cost and cost.bytes, show_bytes(cost and cost.bytes)),
            ]
        )
    head = ["answer", "nominal price", "measured price", "seconds", "memory"]
    return Table("Price of an answer in forward passes", head, rows)

"""The result of a comparison in a few sentences that claim no more than the numbers show."""

from __future__ import annotations

import math
from collections.abc import Sequence

from anyorder.compare.report.formats import listing, plural, show, show_interval
from anyorder.compare.stats.differences import error_of_look, least_units
from anyorder.compare.stats.leaderboard import Row, summarise
from anyorder.compare.stats.records import judged_by, main_axis, unit_of
from anyorder.compare.stats.targets import main_target
from anyorder.compare.stats.tuning import not_tuned_out, trials_of
from anyorder.compare.stats.verdicts import (
    Pair,
    compare_costs,
    compare_pairs,
    lead,
    resolution,
)
from anyorder.compare.store.schema import Results

_FIRST_IS = {
    "better": "better than",
    "faster": "faster than",
    "slower": "slower than",
    "worse": "worse than",
    "not separable": "not separable from",
    "not comparable": "not comparable with",
}


def headline(results: Results) -> list[str]:
    """The sentences, most important first."""
    rows = [row for row in summarise(results) if not row.twin]
    if not rows:
        return ["No method took part."]
    if rows[0].failed:
        return ["No method has a result; the reasons are listed below."]
    pairs = compare_pairs(results)
    said = [
        _first(results, rows[0]),
        *_verdict(results, rows[0], pairs),
        *_cost(results, rows),
        *_scope(results, pairs),
        *_tuning(results),
        *_twin(results),
        *_looks(results),
        *_lost(results),
    ]
    return [sentence for sentence in said if sentence]


def runs_of(row: Row) -> str:
    """How often a method was tuned and run.

    Example:
        >>> runs_of(Row("a", tunings=5, runs=25)), runs_of(Row("a", tunings=1, runs=3))
        ('5 tunings x 5 seeds', '3 seeds')
    """
    if row.tunings > 1:
        return f"{plural(row.tunings, 'tuning')} x {plural(row.runs // row.tunings, 'seed')}"
    return plural(row.runs, "seed")


def _first(results: Results, row: Row) -> str:
    name = judged_by(results).name
    if math.isinf(row.judged):
        return (
            f"{row.name} is first, although too many of its runs diverged or failed for an average."
        )
    ends = show_interval(row.judged_low, row.judged_high)
    ends = ends and f" {ends}, 95 % interval"
    return f"{row.name} is first: {name} {show(row.judged)}{ends} ({runs_of(row)})."


def _verdict(results: Results, first: Row, pairs: Sequence[Pair]) -> list[str]:
    """Whether the first method is separated from the others."""
    own = [pair if pair.a == first.name else pair.turned() for pair in pairs]
    own = [pair for pair in own if pair.a == first.name]
    if not own:
        return []
    tested = [pair for pair in pairs if pair.verdict != "not comparable"]
    if tested and all(pair.why for pair in tested):
        unit, most = tested[0].unit, max(pair.units for pair in tested)
        needed = tested[0].why.removeprefix(f"too few {unit}s, ")
        return [
            f"{plural(most, unit)} cannot separate {plural(len(tested), 'pair')} of "
            f"{'methods' if unit == 'tuning' else 'configurations'}, however far apart: {needed}."
        ]
    found = lead(results, first.name, pairs)
    of = "" if unit_of(results) == "tuning" else "This configuration of "
    if found.apart:
        rows = "" if found.rows else " (test rows not resampled)"
        others = "all others" if len(own) > 1 else own[0].b
        return [f"{of}{first.name} is apart from {others} ({runs_of(first)}){rows}."]
    said = [f"{of}{first.name} is {_grouped(own)}."]
    if found.within_rows:
        said.append(
            f"Its lead over {listing(list(found.within_rows))} may be due to the choice of test "
            "rows: the interval that covers it holds 0."
        )
    return said


def _grouped(pairs: Sequence[Pair]) -> str:
    """The verdicts of a method against others, grouped by verdict."""
    parts: list[str] = []
    for word, said in _FIRST_IS.items():
        if found := [pair for pair in pairs if pair.verdict == word]:
            parts.append(f"{said} {listing([pair.b for pair in found])}{_effort(found)}")
    return "; ".join(parts)


def _effort(pairs: Sequence[Pair]) -> str:
    """Number of further units that would separate the pairs, as a range."""
    wanted = sorted({pair.more for pair in pairs if pair.more is not None})
    if not wanted:
        return ""
    ends = " to ".join(dict.fromkeys(f"{more:,}" for more in (wanted[0], wanted[-1])))
    return f" (needs about {ends} more {pairs[0].unit}{'' if wanted == [1] else 's'})"


def _cost(results: Results, rows: Sequence[Row]) -> list[str]:
    """The method with the lowest cost to the target."""
    target, axis = main_target(results), main_axis(results)
    hit = [row for row in rows if row.success]
    if target is None or len(rows) < 2 or not hit:
        return []
    fast = min(hit, key=lambda row: (row.target_cost or 0.0, row.name))
    own = [p if p.a == fast.name else p.turned() for p in compare_costs(results)]
    own = [pair for pair in own if pair.a == fast.name and pair.verdict != "not comparable"]
    unit = "s" if axis == "seconds" else axis
    told = f"; it is {_grouped(own)}" if own and not all(pair.why for pair in own) else ""
    return [
        f"{fast.name} reaches {results.problem.metric} {show(target.value)} ({target.source}) at "
        f"the lowest expected cost, {show(fast.target_cost)} {unit}{told}."
    ]


def _scope(results: Results, pairs: Sequence[Pair]) -> list[str]:
    """A note where the statements are about configurations, not methods."""
    if unit_of(results) == "tuning" or not pairs:
        return []
    tested = sum(pair.verdict != "not comparable" for pair in pairs)
    # Adding tunings is another look.
    least = least_units(tested, error_of_look(results.plan.looks + 1), paired=False)
    if any(len(trials_of(method)) > 1 for method in results.methods):
        return [
            "Configurations, one tuning each: another tuning may choose others and reverse the "
            f"order. To compare methods, add --extend --tunings {least} or more."
        ]
    return [
        "Configurations, none of them tuned. To compare methods, use --tune 4 or more and "
        f"--tunings {least} or more."
    ]


def _tuning(results: Results) -> list[str]:
    """Methods that are not tuned out, grouped by reason."""
    reasons: dict[str, list[str]] = {}
    for each in not_tuned_out(results):
        reasons.setdefault(each.reason, []).append(each.method)
    said = [f"{listing(names)} ({reason})" for reason, names in reasons.items()]
    return [f"Not tuned out: {'; '.join(said)}."] if said else []


def _twin(results: Results) -> list[str]:
    """The baseline against its twin."""
    pair = resolution(results)
    if pair is None:
        return []
    if pair.verdict == "not comparable":
        return [f"Resolution unknown: {pair.a} against itself (A/A): {pair.why}."]
    size = f"differs by {show(abs(pair.difference), 2)}"
    size = size if math.isfinite(pair.difference) else "has runs without result"
    if pair.verdict == "not separable":
        return [f"Resolution: {pair.a} against itself (A/A) {size}, not separable."]
    return [
        f"Caution: {pair.a} against itself (A/A) {size} and is separated (p = {show(pair.p, 2)}); "
        "differences of this size are not meaningful here."
    ]


def _looks(results: Results) -> list[str]:
    looks = results.plan.looks
    if looks == 1:
        return []
    return [
        f"The comparison was extended {'once' if looks == 2 else f'{looks - 1} times'}: verdicts "
        f"are held to an error of {error_of_look(looks):.2g}, so that all looks together keep 5 %."
    ]


def _lost(results: Results) -> list[str]:
    criterion = judged_by(results)
    runs = [run for method in results.methods for run in method.runs]
    lost = sum(not math.isfinite(criterion.of(run)) for run in runs)
    if not lost:
        return []
    return [f"{lost} of {plural(len(runs), 'run')} diverged or failed and count as worst."]

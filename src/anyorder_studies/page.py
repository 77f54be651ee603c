"""Generates the page of a study, with claims and measurements."""

from __future__ import annotations

import inspect

from anyorder_studies.result import FIGURE, StudyResult
from anyorder_studies.study import Claim, Measurement, Study

SYMBOLS = {"lower": "<", "higher": ">", "equal": "="}


def number(value: float) -> str:
    """Format a number with four significant digits, with an exponent only if needed."""
    if value == int(value) and abs(value) < 1e9:
        return str(int(value))
    return f"{value:.4g}"


def interval(measurement: Measurement) -> str:
    """Format a measurement: value, interval, repetitions."""
    if measurement.low == measurement.high:
        return f"{number(measurement.value)} (exact)"
    ends = [
        "unknown" if abs(end) == float("inf") else number(end)
        for end in (measurement.low, measurement.high)
    ]
    return f"{number(measurement.value)} [{ends[0]}, {ends[1]}], n = {measurement.n}"


def claimed(claim: Claim) -> str:
    """Format a claim's numbers."""
    if claim.direction == "equal":
        return f"= {number(claim.expected)} +- {number(claim.slack)} {claim.unit}"
    sign = SYMBOLS[claim.direction]
    if claim.expected == claim.threshold:
        return f"{sign} {number(claim.threshold)} {claim.unit} (direction only)"
    return f"{number(claim.expected)} {claim.unit} (effect: {sign} {number(claim.threshold)})"


def origin(paper: int | None) -> str:
    """Format the origin of a study: its paper's number, or the catalogue's background."""
    return "Background" if paper is None else f"Paper [{paper}]"


def command(result: StudyResult) -> str:
    """Return the command that runs the study again."""
    return f"anyorder study run {result.key} --scale {result.scale}"


def _run_of(seeds: tuple[int, ...]) -> str:
    if len(seeds) > 2 and seeds == tuple(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds)) or "none"


#: What a badge means for the reader of a page.
NOTES = {
    "changed after results": "The claims or the protocol changed after this result was measured.",
    "code changed": "The code changed after this result was measured.",
}


def study_page(study: Study, result: StudyResult, change: str | None = None) -> str:
    """Return the Markdown page of a study; equal arguments give equal text.

    Args:
        study: The study.
        result: Its result.
        change: How the study differs from the one that was run, see ``protocol.changes``.
    """
    rows = [
        f"| {claim.text} | {claimed(claim)} | "
        f"{interval(result.measurements[claim.quantity])} | {status} | {claim.source} |"
        for claim, status in result.judged
    ]
    others = sorted(set(result.measurements) - {claim.quantity for claim in result.claims})
    waiting = [claim for claim in study.claims if claim.quantity not in result.measurements]
    more = [f"| `{name}` | {interval(result.measurements[name])} |" for name in others]
    seeds = _run_of(result.seeds)
    used = "; ".join(f"{name} {value}" for name, value in result.environment.items())
    lines = [
        f"# {study.title}",
        "",
        f"{origin(study.paper)} · **{result.verdict}**{f' · **{change}**' if change else ''} · "
        f"scale `{result.scale}` · {number(round(result.seconds, 1))} s · {result.date}",
        "",
        *([f"{NOTES[change]} Run it again: `{command(result)}`.", ""] if change else []),
        inspect.getdoc(type(study)) or "",
        "",
        f"![{study.title}]({FIGURE})",
        "",
        "| claim (the first is the central one) | claimed | measured | status | source |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"The abstract leads with: {study.headline}.",
        "",
        *_not_measured(waiting),
        *(["| also measured | value |", "|---|---|", *more, ""] if more else []),
        "```",
        command(result),
        f"anyorder study verify {result.key}",
        "```",
        "",
        f"- Seeds: {seeds}. Units of work: {result.units}.",
        f"- Environment: {used}.",
        *([f"- Data: {', '.join(study.data)} (SHA-256 {result.data})."] if study.data else []),
        *(f"- {name.capitalize()}: SHA-256 {value}." for name, value in result.hashes.items()),
        *([f"- Commit before the run: {result.commit}."] if result.commit else []),
        f"- Full scale would need: {study.scales['full']['need']}.",
        "",
        "This page is generated from the study and its stored result; the verdict follows from "
        "the rule in the documentation of studies.",
        "",
    ]
    return "\n".join(lines)


def _not_measured(claims: list[Claim]) -> list[str]:
    if not claims:
        return []
    rows = [f"- {claim.text} Claimed: {claimed(claim)} ({claim.source})." for claim in claims]
    return ["Claims that this result does not contain yet:", "", *rows, ""]

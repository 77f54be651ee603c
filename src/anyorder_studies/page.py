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


def study_page(study: Study, result: StudyResult) -> str:
    """Return the Markdown page of a study; equal arguments give equal text."""
    rows = [
        f"| {claim.text} | {claimed(claim)} | "
        f"{interval(result.measurements[claim.quantity])} | {status} | {claim.source} |"
        for claim, status in zip(study.claims, result.statuses, strict=True)
    ]
    others = sorted(set(result.measurements) - {claim.quantity for claim in study.claims})
    more = [f"| `{name}` | {interval(result.measurements[name])} |" for name in others]
    seeds = _run_of(result.seeds)
    used = "; ".join(f"{name} {value}" for name, value in result.environment.items())
    lines = [
        f"# {study.title}",
        "",
        f"{origin(study.paper)} · **{result.verdict}** · scale `{result.scale}` · "
        f"{number(round(result.seconds, 1))} s",
        "",
        inspect.getdoc(type(study)) or "",
        "",
        f"![{study.title}]({FIGURE})",
        "",
        "| claim (the first is the central one) | claimed | measured | status | source |",
        "|---|---|---|---|---|",
        *rows,
        "",
        *(["| also measured | value |", "|---|---|", *more, ""] if more else []),
        "```",
        command(result),
        f"anyorder study verify {result.key}",
        "```",
        "",
        f"- Seeds: {seeds}. Units of work: {result.units}.",
        f"- Environment: {used}.",
        *([f"- Data: {', '.join(study.data)} (SHA-256 {result.data})."] if study.data else []),
        f"- Code: SHA-256 {result.code}.",
        f"- Full scale would need: {study.scales['full']['need']}.",
        "",
        "This page is generated from the study and its stored result; the verdict follows from "
        "the rule in the documentation of studies.",
        "",
    ]
    return "\n".join(lines)

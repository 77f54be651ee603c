"""The report of a comparison: one page that opens without a network, one for terminals, one table.

``report.html`` holds everything it needs: styles, scripts and data. A content policy in it forbids
requests to anywhere and scripts other than its own, whatever a method is called or an error says.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from anyorder.compare.report import tables
from anyorder.compare.report.charts import marks, metric_of
from anyorder.compare.report.curves import figures
from anyorder.compare.report.formats import listing, plural, show, show_interval, show_seconds
from anyorder.compare.stats.estimators import seeds_needed
from anyorder.compare.stats.records import (
    AXES,
    cost,
    fields,
    judged_by,
    listed,
    main_axis,
    methods_of,
    number,
    rates_of,
    runs_of,
    succeeded,
)
from anyorder.compare.stats.verdicts import Row, compare_pairs, summarise
from anyorder.compare.store.results import write_whole
from anyorder.extras import require
from anyorder.oracle.kinds import COUNTS

_TEMPLATES = Path(__file__).parent / "templates"
_NUMBERS = (
    *("train_loss", "val_loss", "metric"),
    *("oracle_seconds", "optimizer_seconds", "data_seconds", "peak_bytes"),
)


def write(results: Mapping[str, Any], out: Path) -> list[Path]:
    """Write ``report.html``, ``report.md`` and ``curves.csv`` into a folder.

    Args:
        results: What ``results.json`` holds; optional fields may be missing.
        out: The folder, made if there is none. Files of an earlier report are replaced.

    Returns:
        The files.

    Raises:
        StorageError: The folder cannot be written or is full.
        MissingExtraError: Jinja is not installed.
    """
    texts = {"report.html": html(results), "report.md": markdown(results)}
    out.mkdir(parents=True, exist_ok=True)
    for name, text in {**texts, "curves.csv": curves(results)}.items():
        write_whole(out / name, text)
    return [out / name for name in (*texts, "curves.csv")]


# --- The page ----------------------------------------------------------------------------------


def html(results: Mapping[str, Any]) -> str:
    """The report as one page without outside parts."""
    methods, charts = methods_of(results), figures(results)
    styles = _part("report.css")
    script = "".join(_part(name) for name in ("marks.js", "chart.js", "page.js"))
    data = {
        "axis": main_axis(results),
        "marks": marks(len(methods)),
        "names": [str(method.get("name")) for method in methods],
        "charts": charts,
    }
    return (
        _environment()
        .get_template("report.html")
        .render(
            title=_title(results),
            facts=_facts(results),
            headline=headline(results),
            warnings=[str(each) for each in listed(results.get("warnings"))],
            names=data["names"],
            charts={chart["id"]: chart for chart in charts},
            axes=[axis for axis in AXES if any(axis in chart["views"] for chart in charts)],
            main_axis=data["axis"],
            tables=tables,
            results=results,
            methods=methods,
            findings=[
                fields(each) for each in listed(fields(results.get("probe")).get("findings"))
            ],
            probed=_probed(fields(results.get("probe"))),
            settings=[_settings(method) for method in methods],
            plan=_flat(_without(fields(results.get("plan")), "methods")),
            environment=_flat(fields(results.get("environment"))),
            traces=_traces(methods),
            command=command(results),
            data=_embedded(data),
            styles=styles,
            style_hash=_digest(styles),
            script=script,
            script_hash=_digest(script),
        )
    )


@cache
def _part(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


@cache
def _environment() -> Any:
    jinja = require("jinja2")
    return jinja.Environment(
        loader=jinja.FileSystemLoader(_TEMPLATES),
        autoescape=jinja.select_autoescape(["html"]),
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _digest(text: str) -> str:
    """What a content policy calls a script or a style by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _embedded(data: Any) -> str:
    """JSON that no text in it can end early, whatever HTML makes of it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _title(results: Mapping[str, Any]) -> str:
    problem = str(fields(results.get("problem")).get("name") or "a problem")
    return f"{plural(len(methods_of(results)), 'method')} on {problem}"


def _facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What must be known before any number is read."""
    plan, problem = fields(results.get("plan")), fields(results.get("problem"))
    options = ", ".join(f"{name}={value}" for name, value in fields(problem.get("options")).items())
    tune = plan.get("tune")
    found = [
        ("problem", f"{problem.get('name', '')} {f'({options})' if options else ''}".strip()),
        ("budget of a run", str(plan.get("budget") or "")),
        ("report seeds", str(plan.get("seeds") or "")),
        ("tuning", "none" if tune in (0, 1) else f"{plural(tune, 'trial')} each" if tune else ""),
        ("schedule", str(plan.get("schedule") or "")),
        ("made", str(results.get("created") or "").replace("T", " ").replace("+00:00", " UTC")),
    ]
    return [(name, text) for name, text in found if text]


def headline(results: Mapping[str, Any]) -> list[str]:
    """What came out, in a few sentences that claim no more than the numbers do."""
    rows = summarise(results)
    if not rows:
        return ["No method took part."]
    if rows[0].failed:
        return ["No method has a result; the reasons are listed below."]
    key = judged_by(results)[0]
    name = metric_of(results) if key == "metric" else "validation loss"
    said = [_first(rows[0], key, name)]
    pairs = [pair for pair in compare_pairs(results) if pair.verdict != "not comparable"]
    if pairs and all(pair.why for pair in pairs):
        said.append(
            f"{plural(max(pair.seeds for pair in pairs), 'seed')} cannot give a verdict on "
            f"{plural(len(pairs), 'pair')} of methods, however far apart: "
            f"that takes {seeds_needed(len(pairs))}. {_apart(rows, key)}".strip()
        )
    else:
        said += _verdicts(tables.leaderboard(results))
    runs = [run for method in methods_of(results) for run in runs_of(method)]
    lost = sum(not succeeded(run) for run in runs)
    if lost:
        said.append(f"{lost} of {plural(len(runs), 'run')} diverged or failed and count as worst.")
    return said


def _verdicts(board: tables.Table) -> list[str]:
    place = board.head.index("against the first")
    words = {
        "worse": "better than",
        "not separable": "not separable from",
        "better": "worse than",
        "not comparable": "not comparable with",
    }
    parts = [
        f"{said} {listing(others)}"
        for word, said in words.items()
        if (others := [row[1].text for row in board.rows if row[place].word == word])
    ]
    return [f"On the same seeds it is {'; '.join(parts)}."] if parts else []


def _apart(rows: Sequence[Row], key: str) -> str:
    """Which intervals do not touch that of the first: no test, but all that few seeds can say."""

    def ends(row: Row) -> tuple[float | None, float | None]:
        return (row.metric_low, row.metric_high) if key == "metric" else (row.low, row.high)

    def apart(a: Row, b: Row) -> bool:
        (low, high), (least, most) = ends(a), ends(b)
        if low is None or high is None or least is None or most is None:
            return False
        return high < least or most < low

    others = [row.name for row in rows[1:] if apart(rows[0], row)]
    whom = "all others" if len(others) == len(rows) - 1 > 1 else listing(others)
    return f"The interval of {rows[0].name} lies apart from that of {whom}." if others else ""


def _first(row: Row, key: str, name: str) -> str:
    value = row.metric if key == "metric" else row.final_loss
    ends = (row.metric_low, row.metric_high) if key == "metric" else (row.low, row.high)
    if math.isinf(value):
        return f"{row.name} comes first, although too many of its runs were lost for an average."
    how = f"interquartile mean of {plural(row.runs, 'seed')}" if row.runs > 1 else "one seed"
    said = f"{row.name} comes first with {name} {show(value)} {show_interval(*ends)}".strip()
    return f"{said} ({how})."


def _probed(probe: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a look at the problem found, apart from prices and complaints."""
    noise, found = fields(probe.get("noise")), list[tuple[str, str]]()
    if probe.get("parameters") is not None:
        found.append(("parameters", _said(probe["parameters"])))
    if probe.get("deterministic") is not None:
        found.append(("same seed, same loss", _said(probe["deterministic"])))
    if noise:
        mean, std = number(noise.get("mean")), number(noise.get("std"))
        said = f"{show(mean)}, standard deviation {show(std, 2)}"
        found.append((f"loss of {noise.get('batches')} batches at the start", said))
    if "second_derivative" in probe:
        found.append(("second derivative", str(probe["second_derivative"] or "available")))
    if "in_parts" in probe:
        found.append(("outputs and criterion apart", "yes" if probe["in_parts"] else "no"))
    if probe.get("evaluation_seconds") is not None:
        found.append(("one evaluation", show_seconds(number(probe["evaluation_seconds"]))))
    told = ("parameters", "deterministic", "noise", "second_derivative", "in_parts")
    rest = _without(probe, "ok", "findings", "costs", "measured", "evaluation_seconds", *told)
    return found + _flat(rest)


def _traces(methods: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The first traceback of every method that has one; the others are most often the same."""
    found = [
        next(
            (
                (f"{method.get('name')}, seed {run.get('seed')}", str(run["traceback"]))
                for run in runs_of(method)
                if run.get("traceback")
            ),
            None,
        )
        for method in methods
    ]
    return [each for each in found if each is not None]


def _settings(method: Mapping[str, Any]) -> dict[str, Any]:
    """All that was resolved of one method."""
    spaces = [
        f"{each.get('name')}: {each.get('kind', '')} "
        + (
            ", ".join(map(str, listed(each.get("choices"))))
            if each.get("choices")
            else f"{show(number(each.get('low')))} to {show(number(each.get('high')))}"
        )
        + (" (assumed)" if each.get("assumed") else "")
        for each in map(fields, listed(method.get("space")))
    ]
    return {
        "name": str(method.get("name")),
        "facts": [
            (name, str(method[key]))
            for name, key in (("class", "class"), ("version", "version"), ("given as", "spec"))
            if method.get(key)
        ]
        + [("asks for", ", ".join(map(str, listed(method.get("needs")))))]
        + [("searched", "; ".join(spaces) or "nothing")],
        "settings": _flat(fields(method.get("settings"))),
    }


def _without(table: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in table.items() if name not in names}


def _flat(tree: Any, path: str = "") -> list[tuple[str, str]]:
    """Leaves of nested objects as lines: where they stand, and what they are."""
    if isinstance(tree, dict) and tree:
        pairs = cast("dict[str, Any]", tree).items()
        return [
            line for name, part in pairs for line in _flat(part, f"{path}, {name}".lstrip(", "))
        ]
    return [(path, _said(cast("object", tree)))] if path else []


def _said(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_said, cast("list[object]", value))) or "none"
    if value is None or isinstance(value, dict):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def command(results: Mapping[str, Any]) -> str:
    """What makes the same comparison again; put together from the plan if it was not recorded."""
    if results.get("command"):
        return str(results["command"])
    plan, problem = fields(results.get("plan")), fields(results.get("problem"))
    names = [str(method.get("spec") or method.get("name")) for method in methods_of(results)]
    words = ["anyorder", "compare", str(problem.get("spec") or problem.get("name") or "PROBLEM")]
    words += ["--methods", ",".join(names)] if names else []
    for option in ("budget", "tune", "seeds", "schedule", "device"):
        if plan.get(option) is not None:
            words += [f"--{option}", str(plan[option])]
    return shlex.join(words)


# --- Plain texts -------------------------------------------------------------------------------


def markdown(results: Mapping[str, Any]) -> str:
    """Headline and leaderboard for terminals, issues and repositories."""
    board = tables.leaderboard(results)
    lines = [f"# {_plain(_title(results))}", ""]
    lines += [f"- {_plain(name)}: {_plain(text)}" for name, text in _facts(results)]
    lines += ["", *(f"{_plain(each)}\n" for each in headline(results))]
    lines += [f"Warning: {_plain(str(each))}\n" for each in listed(results.get("warnings"))]
    lines += ["## Leaderboard", "", *_rows(board), ""]
    others = (tables.test_data(results), tables.losses(results))
    for table in (each for each in others if each is not None):
        lines += [f"## {table.caption}", "", *_rows(table), ""]
    text = command(results)
    fence = "`" * max(3, 1 + max((len(run) for run in _runs_of_ticks(text)), default=0))
    lines += ["## To run it again", "", f"{fence}sh", text, fence, ""]
    return "\n".join(lines)


def _rows(table: tables.Table) -> Sequence[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    def text(cell: tables.Cell) -> str:
        small = f"({cell.small})" if cell.small and not cell.small.startswith("[") else cell.small
        return _plain(f"{cell.text} {small}".strip())

    body = [[text(cell) for cell in row] for row in table.rows]
    head = [_plain(name) for name in table.head]
    return [line(head), line(["---"] * len(head)), *map(line, body)]


def _plain(text: str) -> str:
    """Text that means nothing to Markdown or HTML, on one line."""
    signs = {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {sign: f"\\{sign}" for sign in "\\`*_[]|#"}
    return " ".join("".join(signs.get(sign, sign) for sign in text).split())


def _runs_of_ticks(text: str) -> list[str]:
    return [part for part in "".join(c if c == "`" else " " for c in text).split() if part]


def curves(results: Mapping[str, Any]) -> str:
    """Every evaluation of every reported run as CSV; numbers as they were recorded."""
    axes = ("fraction", "seconds", "forwards", "steps")
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["method", "seed", "status", *axes, *COUNTS, *_NUMBERS])
    prices = rates_of(results)
    for method in methods_of(results):
        for run in runs_of(method):
            for point in map(fields, listed(run.get("curve"))):
                calls = fields(point.get("calls"))
                costs = [
                    cost(point, "forwards", prices) if a == "forwards" else point.get(a)
                    for a in axes
                ]
                row = [method.get("name"), run.get("seed"), run.get("status"), *costs]
                row += [calls.get(kind) for kind in COUNTS] + [point.get(k) for k in _NUMBERS]
                writer.writerow(row)
    return file.getvalue()

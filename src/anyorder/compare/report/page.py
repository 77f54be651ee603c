"""The report of a comparison: an offline HTML page, a Markdown page and a CSV file.

``report.html`` contains its styles, scripts and data. Its content security policy forbids requests
and other scripts, so names of methods and error messages cannot inject any.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, cast

from anyorder.compare.plan.space import Dimension
from anyorder.compare.report import tables
from anyorder.compare.report.charts import marks
from anyorder.compare.report.curves import figures
from anyorder.compare.report.formats import plural, show, show_seconds
from anyorder.compare.report.headline import headline
from anyorder.compare.run.records import Pilot
from anyorder.compare.stats.records import AXES, main_axis
from anyorder.compare.stats.tuning import searched
from anyorder.compare.store.results import keep_text
from anyorder.compare.store.schema import MethodRecord, Results
from anyorder.extras import require
from anyorder.oracle.kinds import COUNTS

_TEMPLATES = Path(__file__).parent / "templates"
_NUMBERS = (
    *("train_loss", "val_loss", "metric"),
    *("oracle_seconds", "optimizer_seconds", "data_seconds", "peak_bytes"),
)


def write(results: Results, out: Path) -> list[Path]:
    """Write ``report.html``, ``report.md`` and ``curves.csv`` into a folder.

    Args:
        results: The content of ``results.json``.
        out: The folder, created if missing. Files of an earlier report are replaced.

    Returns:
        The files.

    Raises:
        StorageError: The folder cannot be written or is full.
        MissingExtraError: Jinja is not installed.
    """
    texts = {"report.html": html(results), "report.md": markdown(results)}
    out.mkdir(parents=True, exist_ok=True)
    for name, text in {**texts, "curves.csv": curves(results)}.items():
        keep_text(out / name, text)
    return [out / name for name in (*texts, "curves.csv")]


# --- The page ----------------------------------------------------------------------------------


def html(results: Results) -> str:
    """The report as one self-contained page."""
    methods, charts = results.methods, figures(results)
    styles = _part("report.css")
    script = "".join(_part(name) for name in ("marks.js", "chart.js", "page.js"))
    data = {
        "axis": main_axis(results),
        "marks": marks(len(methods)),
        "names": [method.name for method in methods],
        "charts": charts,
    }
    plan = {**asdict(results.plan.settings), "source": results.plan.source}
    return (
        _environment()
        .get_template("report.html")
        .render(
            title=_title(results),
            facts=_facts(results),
            headline=headline(results),
            names=data["names"],
            charts={chart["id"]: chart for chart in charts},
            axes=[axis for axis in AXES if any(axis in chart["views"] for chart in charts)],
            main_axis=data["axis"],
            tables=tables,
            results=results,
            pilot=_pilot(results.pilot),
            settings=[_settings(method) for method in methods],
            plan=_flat({**plan, "fingerprint": results.fingerprint}),
            environment=_flat(asdict(results.environment)),
            traces=_traces(methods),
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
    """The hash of a script or style for the content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _embedded(data: Any) -> str:
    """JSON escaped for a ``<script>`` element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _title(results: Results) -> str:
    return f"{plural(len(results.methods), 'method')} on {results.problem.name}"


def _facts(results: Results) -> list[tuple[str, str]]:
    """The main conditions of the comparison."""
    settings, problem = results.plan.settings, results.problem
    options = ", ".join(f"{name}={value}" for name, value in problem.options.items())
    tune = settings.tune
    return [
        ("problem", problem.name + (f" ({options})" if options else "")),
        ("budget of a run", settings.budget),
        ("report seeds", str(settings.seeds)),
        ("tuning", f"{plural(tune, 'trial')} each" if tune > 1 else "none"),
        ("schedule", str(settings.schedule)),
        ("made", results.created.replace("T", " ").replace("+00:00", " UTC")),
    ]


def _pilot(found: Pilot) -> list[tuple[str, str]]:
    """Results of the pilot, without prices and findings."""
    noise = found.noise
    return [
        ("parameters", _said(found.parameters)),
        ("same seed, same loss", _said(found.deterministic)),
        (
            f"loss of {noise.batches} batches at the initial point",
            f"{show(noise.mean)}, standard deviation {show(noise.std, 2)}",
        ),
        ("second derivative", found.second_derivative or "available"),
        ("composite (outputs and criterion)", _said(found.in_parts)),
        ("one evaluation", show_seconds(found.evaluation_seconds)),
    ]


def _traces(methods: Sequence[MethodRecord]) -> list[tuple[str, str]]:
    """The first traceback of every method that has one; others are usually the same."""
    found: dict[str, tuple[str, str]] = {}
    for method in methods:
        for run in method.runs:
            if run.traceback:
                found.setdefault(method.name, (f"{method.name}, seed {run.seed}", run.traceback))
    return list(found.values())


def _settings(method: MethodRecord) -> dict[str, Any]:
    """The resolved facts of one method."""
    settings: dict[str, Any] = {f"tuning {each.index}": each.settings for each in method.tunings}
    if len(method.tunings) == 1:
        settings = method.tunings[0].settings
    return {
        "name": method.name,
        "facts": [
            ("class", method.class_name),
            ("version", method.version),
            ("specified as", method.spec),
            ("needs", ", ".join(method.needs)),
            ("searched", "; ".join(map(_searched, searched(method))) or "nothing"),
        ],
        "settings": _flat(settings),
    }


def _searched(each: Dimension) -> str:
    ends = f"{show(each.low)} to {show(each.high)}"
    what = ", ".join(map(str, each.choices)) if each.choices else ends
    return f"{each.name}: {each.kind} {what}" + f" ({each.source})"


def _flat(tree: Any, path: str = "") -> list[tuple[str, str]]:
    """Leaves of nested objects as pairs of path and value."""
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


# --- Plain texts -------------------------------------------------------------------------------


def markdown(results: Results) -> str:
    """Headline and leaderboard for terminals, issues and repositories."""
    board = tables.leaderboard(results)
    lines = [f"# {_plain(_title(results))}", ""]
    lines += [f"- {_plain(name)}: {_plain(text)}" for name, text in _facts(results)]
    lines += ["", *(f"{_plain(each)}\n" for each in headline(results))]
    lines += [f"Warning: {_plain(each)}\n" for each in results.warnings]
    lines += ["## Leaderboard", "", *_rows(board), ""]
    others = (tables.test_data(results), tables.losses(results))
    for table in (each for each in others if each is not None):
        lines += [f"## {table.caption}", "", *_rows(table), ""]
    text = results.command
    fence = "`" * max(3, 1 + max((len(run) for run in _runs_of_ticks(text)), default=0))
    lines += ["## Reproduce", "", f"{fence}sh", text, fence, ""]
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
    """Text escaped for Markdown and HTML, on one line."""
    signs = {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {sign: f"\\{sign}" for sign in "\\`*_[]|#"}
    return " ".join("".join(signs.get(sign, sign) for sign in text).split())


def _runs_of_ticks(text: str) -> list[str]:
    return [part for part in "".join(c if c == "`" else " " for c in text).split() if part]


def curves(results: Results) -> str:
    """Every evaluation of every reported run as CSV, with unrounded numbers."""
    axes = ("fraction", "seconds", "forwards", "steps")
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["method", "seed", "status", *axes, *COUNTS, *_NUMBERS])
    for method in results.methods:
        for run in method.runs:
            for point in run.curve:
                row = [method.name, run.seed, run.status, *(getattr(point, a) for a in axes)]
                row += [getattr(point.calls, kind) for kind in COUNTS]
                writer.writerow(row + [getattr(point, name) for name in _NUMBERS])
    return file.getvalue()

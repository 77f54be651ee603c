"""The report of a comparison: an offline HTML page, and files for other programs.

``report.html`` contains its styles, scripts and data. Its content security policy forbids requests
and other scripts, so names of methods and error messages cannot inject any.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, cast

from anyorder.compare.plan.space import Dimension
from anyorder.compare.report import exports, svg, tables
from anyorder.compare.report.charts import marks, palette
from anyorder.compare.report.curves import figures
from anyorder.compare.report.formats import show, show_seconds
from anyorder.compare.report.headline import headline
from anyorder.compare.report.incidents import incidents, summary
from anyorder.compare.run.records import Pilot
from anyorder.compare.stats.records import AXES, main_axis
from anyorder.compare.stats.tuning import searched
from anyorder.compare.store.results import keep_text
from anyorder.compare.store.schema import MethodRecord, Results
from anyorder.extras import require

_TEMPLATES = Path(__file__).parent / "templates"


def write(results: Results, out: Path) -> list[Path]:
    """Write the report into a folder.

    These are ``report.html``, ``report.md``, ``report.tex``, ``leaderboard.csv``, ``curves.csv``,
    and ``charts/NAME.svg`` for each chart of the page that is not empty.

    Args:
        results: The content of ``results.json``.
        out: The folder, created if missing. Files of an earlier report are replaced; charts that
            it had and this one has not are deleted, unless they were changed.

    Returns:
        The files.

    Raises:
        StorageError: The folder cannot be written or is full.
        MissingExtraError: Jinja is not installed.
    """
    charts, names = figures(results), [method.name for method in results.methods]
    drawings = {
        f"charts/{each['id']}.svg": svg.draw(each, names, main_axis(results))
        for each in charts
        if not each.get("empty")
    }
    texts = {
        "report.html": html(results),
        "report.md": exports.markdown(results),
        "report.tex": exports.latex(results),
        "leaderboard.csv": exports.board(results),
        "curves.csv": exports.curves(results),
        **drawings,
    }
    for name, text in texts.items():
        keep_text(out / name, text)
    _delete_old(out, drawings)
    return [out / name for name in texts]


def _delete_old(out: Path, drawings: Mapping[str, str]) -> None:
    """Delete the charts of an earlier report that this one has not, and note those of this one.

    The note has a hash of every chart, so that a file that somebody else wrote is never deleted.
    """
    note = out / "charts/.written.json"
    before: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError, AttributeError):  # missing or damaged
        before = dict(json.loads(note.read_text(encoding="utf-8")).items())
    for name in before.keys() - drawings.keys():
        path = out / "charts" / Path(name).name
        with contextlib.suppress(OSError):
            if hashlib.sha256(path.read_bytes()).hexdigest() == before[name]:
                path.unlink()
    now = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in drawings.items()}
    keep_text(note, json.dumps(now, indent=1) + "\n")


# --- The page ----------------------------------------------------------------------------------


def html(results: Results) -> str:
    """The report as one self-contained page."""
    methods, charts = results.methods, figures(results)
    board, remarks, shared = tables.without_remarks(tables.leaderboard(results))
    styles = _part("report.css") + palette()
    script = "".join(_part(name) for name in ("marks.js", "save.js", "chart.js", "page.js"))
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
            title=exports.title(results),
            facts=exports.facts(results),
            headline=headline(results),
            names=data["names"],
            charts={chart["id"]: chart for chart in charts},
            axes=[axis for axis in AXES if any(axis in chart["views"] for chart in charts)],
            main_axis=data["axis"],
            tables=tables,
            board=board,
            below=_below(results, board, remarks),
            remarks=shared,
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


def _below(results: Results, board: tables.Table, remarks: list[str]) -> list[dict[str, Any]]:
    """What stands below each row of the leaderboard: remarks, warnings and losses of runs."""
    below: list[dict[str, Any]] = []
    for index, remark in zip(board.methods or [], remarks, strict=True):
        found = incidents(results.methods[index])
        below.append({"remark": remark, "incidents": found, "summary": summary(found)})
    return below


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

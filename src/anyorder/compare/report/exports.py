"""The report as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from anyorder.compare.plan.limits import bytes_in
from anyorder.compare.report import tables
from anyorder.compare.report.formats import plural, show_budget, show_bytes
from anyorder.compare.report.headline import headline
from anyorder.compare.report.incidents import incidents
from anyorder.compare.store.schema import Results
from anyorder.oracle.kinds import COUNTS

_NUMBERS = (
    *("train_loss", "val_loss", "metric"),
    *("oracle_seconds", "optimizer_seconds", "data_seconds", "peak_bytes"),
)


def title(results: Results) -> str:
    """The title of all reports."""
    methods = sum(method.twin_of is None for method in results.methods)
    return f"{plural(methods, 'method')} on {results.problem.name}"


def facts(results: Results) -> list[tuple[str, str]]:
    """The main conditions of the comparison."""
    settings, problem = results.plan.settings, results.problem
    options = ", ".join(f"{name}={value}" for name, value in problem.options.items())
    limit = settings.memory
    tune, tunings, seeds = settings.tune, settings.tunings, settings.seeds
    tuned = f"{plural(tunings, 'tuning')} of {plural(tune, 'trial')}" if tune > 1 else "none"
    return [
        ("problem", problem.name + (f" ({options})" if options else "")),
        ("budget of a run", show_budget(settings.budget)),
        *([("memory limit of a run", show_bytes(bytes_in(limit)))] if limit else []),
        ("tuning of a method", tuned),
        ("report seeds", f"{seeds} per tuning" if tunings > 1 else str(seeds)),
        ("schedule", str(settings.schedule)),
        ("made", results.created.replace("T", " ").replace("+00:00", " UTC")),
    ]


# --- Markdown ----------------------------------------------------------------------------------


def markdown(results: Results) -> str:
    """Headline, tables and warnings for terminals, issues and repositories."""
    board = tables.leaderboard(results)
    lines = [f"# {_plain(title(results))}", ""]
    lines += [f"{_plain(each)}\n" for each in headline(results)]
    lines += [f"- {_plain(name)}: {_plain(text)}" for name, text in facts(results)]
    lines += ["", *(f"Warning: {_plain(each)}\n" for each in results.warnings)]
    lines += ["## Leaderboard", "", *_rows(board), ""]
    others = (tables.test_data(results), tables.losses(results))
    for table in (each for each in others if each is not None):
        lines += [f"## {table.caption}", "", *_rows(table), ""]
    said = [
        f"- **{_plain(method.name)}**, {each.where}: {_plain(each.text)}"
        for method in results.methods
        for each in incidents(method)
        if each.kind == "warning"
    ]
    if said:
        lines += ["## Warnings of runs", "", *said, ""]
    text = results.command
    fence = "`" * max(3, 1 + max((len(run) for run in _runs_of_ticks(text)), default=0))
    lines += ["## Reproduce", "", f"{fence}sh", text, fence, ""]
    return "\n".join(lines)


def _rows(table: tables.Table) -> Sequence[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    body = [[_plain(_text(cell)) for cell in row] for row in table.rows]
    head = [_plain(name) for name in table.head]
    return [line(head), line(["---"] * len(head)), *map(line, body)]


def _text(cell: tables.Cell) -> str:
    small = f"({cell.small})" if cell.small and not cell.small.startswith("[") else cell.small
    return f"{cell.text} {small}".strip()


def _plain(text: str) -> str:
    """Text escaped for Markdown and HTML, on one line."""
    signs = {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {sign: f"\\{sign}" for sign in "\\`*_[]|#"}
    return " ".join("".join(signs.get(sign, sign) for sign in text).split())


def _runs_of_ticks(text: str) -> list[str]:
    return [part for part in "".join(c if c == "`" else " " for c in text).split() if part]


# --- LaTeX -------------------------------------------------------------------------------------

_TEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    '"': "''",  # \textquotedbl needs another encoding than LaTeX's default
    "—": "---",
    "“": "``",
    "”": "''",
    "∞": "$\\infty$",
    "≥": "$\\geq$",
    "≤": "$\\leq$",
    "\u00d7": "$\\times$",
    "…": "...",
    "[": "{[}",  # not an optional argument of the line break before it
}
#: Last sign of Latin Extended-A, which the default fonts of LaTeX have.
_LAST = 0x17F


def latex(results: Results) -> str:
    r"""The leaderboard as a ``table`` for LaTeX; needs ``\usepackage{booktabs}``.

    The remarks stand below the table. The best values are not set in bold, because they may not be
    separable: the column of verdicts says which are.
    """
    board, single, shared = tables.without_remarks(tables.leaderboard(results))
    names = [results.methods[index].name for index in board.methods or []]
    remarks = [f"{name}: {text}." for name, text in zip(names, single, strict=True) if text]
    remarks += [f"All methods: {text}." for text in shared]
    sides = "".join("l" if name in ("method", "against the first") else "r" for name in board.head)

    def line(cells: Iterable[str]) -> str:
        return " & ".join(cells) + r" \\"

    return "\n".join(
        [
            r"% Needs \usepackage{booktabs}.",
            r"\begin{table}",
            r"\centering",
            r"\footnotesize",
            r"\setlength{\tabcolsep}{4pt}",
            f"\\caption{{{_tex(f'{title(results)}. ' + ' '.join(headline(results)))}}}",
            f"\\begin{{tabular}}{{{sides}}}",
            r"\toprule",
            line(map(_stacked, board.head)),
            r"\midrule",
            *(line(_tex(_with_interval(cell)) for cell in row) for row in board.rows),
            r"\bottomrule",
            r"\end{tabular}",
            *([r"\par\smallskip", *map(_tex, remarks)] if remarks else []),
            r"\end{table}",
            "",
        ]
    )


def _with_interval(cell: tables.Cell) -> str:
    """A cell without small print other than an interval, which would make a table too wide."""
    return f"{cell.text} {cell.small}" if cell.small.startswith("[") else cell.text


def _stacked(head: str) -> str:
    """The head of a column on several short lines."""
    lines = [_tex(each) for each in textwrap.wrap(head, 11)]
    return r"\shortstack{" + r"\\".join(lines) + "}" if lines[1:] else _tex(head)


def _tex(text: str) -> str:
    """Text escaped for LaTeX, on one line; signs that its default fonts lack by their numbers."""

    def escaped(sign: str) -> str:
        known = ord(sign) <= _LAST and (sign.isprintable() or sign.isspace())
        return _TEX.get(sign) or (sign if known else f"U+{ord(sign):04X}")

    return " ".join("".join(map(escaped, text)).split())


# --- CSV ---------------------------------------------------------------------------------------


def board(results: Results) -> str:
    """The leaderboard as CSV: unrounded numbers, else the texts."""
    table = tables.leaderboard(results)
    places = ["place" if name == "" else name for name in table.head]
    rows = [[cell.text if cell.value is None else cell.value for cell in row] for row in table.rows]
    return _csv([places, *rows])


def curves(results: Results) -> str:
    """Every evaluation of every reported run as CSV, with unrounded numbers."""
    axes = ("fraction", "seconds", "forwards", "steps")
    rows: list[list[Any]] = [
        ["method", "tuning", "seed", "status", *axes, *COUNTS, *_NUMBERS],
        *(
            [
                *(method.name, run.tuning, run.seed, run.status),
                *(getattr(point, axis) for axis in axes),
                *(getattr(point.calls, kind) for kind in COUNTS),
                *(getattr(point, name) for name in _NUMBERS),
            ]
            for method in results.methods
            for run in method.runs
            for point in run.curve
        ),
    ]
    return _csv(rows)


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()

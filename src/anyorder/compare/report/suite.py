"""The summary of a suite: ``suite.json``, ``suite.md`` and ``suite.html``."""

from __future__ import annotations

import html as escaping
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from anyorder.compare.report.formats import MISSING, plural, show
from anyorder.compare.stats.overview import Overview, Solved, best_of
from anyorder.compare.store.results import keep_text

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
  color-scheme: light dark; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
"""


@dataclass(frozen=True)
class Grid:
    """A table of texts."""

    caption: str
    head: list[str]
    rows: list[list[str]]


def write(found: Overview, out: Path) -> list[Path]:
    """Write the three files into a folder.

    Args:
        found: The outcome of the suite.
        out: The folder, which exists.

    Returns:
        The files.

    Raises:
        StorageError: The folder cannot be written or is full.
    """
    texts = {
        "suite.json": json.dumps(asdict(found), indent=1, allow_nan=False) + "\n",
        "suite.md": markdown(found),
        "suite.html": html(found),
    }
    for name, text in texts.items():
        keep_text(out / name, text)
    return [out / name for name in texts]


def sentences(found: Overview) -> list[str]:
    """What the summary says in words, the most important first."""
    line = best_of(len(found.methods))
    ratios = {score["method"]: score["ratio"] for score in found.scores}
    ahead = [name for name in ratios if ratios[name] < ratios[line]]
    first = min(found.methods, key=lambda name: ratios[name])
    said = [
        f"Least mean cost over {plural(len(found.problems), 'problem')}: {first}.",
        found.agreement,
        f"Better than the {line}: {', '.join(ahead)}."
        if ahead
        else f"No method is better than the {line}.",
    ]
    few = len(found.problems) < 6
    said += ["With fewer than six problems these scores mean little."] if few else []
    said += [f"{name} was left out: {why}" for name, why in found.left_out.items()]
    for method in found.methods:
        reasons = {
            each.problem: why for each in found.problems if (why := each.place(method).failed)
        }
        if reasons:
            why = next(iter(reasons.values()))
            said.append(f"{method} has no result on {', '.join(reasons)}: {why}")
    return said


def grids(found: Overview) -> list[Grid]:
    """The tables: scores, profile, what was reached, and the cost to the targets."""
    line, tuned = best_of(len(found.methods)), bool(found.settings.get("tune", 1))
    scores = [
        [
            each["method"],
            show(each["ratio"], 3),
            # The line repeats the costs of some method, so its rank would say nothing.
            MISSING if each["method"] == line else show(each["rank"], 3),
            f"{each['solved']:.0%}",
        ]
        for each in found.scores
    ]
    profile = [
        [each["method"], *(f"{share:.0%}" for share in each["profile"])] for each in found.scores
    ]
    return [
        Grid(
            "Over all problems",
            ["method", "geometric mean of cost ratios", "average rank", "solved"],
            scores,
        ),
        Grid(
            "Performance profile: share of problems solved within this multiple of the least cost",
            ["method", *(f"{ratio:g} x" for ratio in found.ratios)],
            profile,
        ),
        *([_reached("Reached with the tuned setting", found, "judged")] if tuned else []),
        _reached("Reached with the default setting", found, "default"),
        Grid(
            f"Cost to the target, in budgets (target: what {found.baseline} reaches at 75 %)",
            ["problem", "target", *found.methods, line],
            [_costs(each, found.methods) for each in found.problems],
        ),
    ]


def _reached(caption: str, found: Overview, which: str) -> Grid:
    return Grid(
        caption,
        ["problem", "kind", "budget", "judged by", *found.methods],
        [
            [
                *(each.problem, each.kind, each.budget, each.judged_by),
                *(show(getattr(each.place(name), which)) for name in found.methods),
            ]
            for each in found.problems
        ],
    )


def _costs(each: Solved, methods: Sequence[str]) -> list[str]:
    costs = [each.place(name).cost for name in methods]
    best = None if each.best_default is None else each.place(each.best_default).default_cost
    tried = f"{show(best, 3)} ({each.best_default})" if each.best_default else MISSING
    return [each.problem, show(each.target), *(show(cost, 3) for cost in costs), tried]


def markdown(found: Overview) -> str:
    """The summary for terminals, issues and repositories."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    lines = [f"# Suite {found.suite}", "", f"anyorder {found.created_by}, {found.created}", ""]
    lines += [f"- {each}" for each in sentences(found)]
    for grid in grids(found):
        lines += ["", f"## {grid.caption}", "", line(grid.head), line(["---"] * len(grid.head))]
        lines += [line(row) for row in grid.rows]
    return "\n".join([*lines, "", "## Reproduce", "", "```sh", found.command, "```", ""])


def html(found: Overview) -> str:
    """The summary as one page without scripts."""
    parts = [f"<h1>Suite {escaping.escape(found.suite)}</h1>", "<ul>"]
    parts += [f"<li>{escaping.escape(each)}</li>" for each in sentences(found)]
    parts.append("</ul>")
    parts += [_table(grid) for grid in grids(found)]
    links = [
        f'<li><a href="{escaping.escape(each.problem)}/report.html">'
        f"{escaping.escape(each.problem)}</a></li>"
        for each in found.problems
    ]
    parts += ["<h2>Reports of the problems</h2><ul>", *links, "</ul>"]
    parts.append(f"<p><code>{escaping.escape(found.command)}</code></p>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Suite {escaping.escape(found.suite)}</title><style>{_STYLE}</style></head><body>"
        + "\n".join(parts)
        + "</body></html>\n"
    )


def _table(grid: Grid) -> str:
    def row(cells: Sequence[str], kind: str) -> str:
        inside = "".join(f"<{kind}>{escaping.escape(cell)}</{kind}>" for cell in cells)
        return f"<tr>{inside}</tr>"

    body = "".join(row(each, "td") for each in grid.rows)
    return (
        f'<div class="wide"><table><caption>{escaping.escape(grid.caption)}</caption>'
        f"<thead>{row(grid.head, 'th')}</thead><tbody>{body}</tbody></table></div>"
    )

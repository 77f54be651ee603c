"""Generates a part of ``docs/papers.md``: counts and the table of all papers.

Update the page from the repository's root with::

    python -m anyorder_papers.page docs/papers.md
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from anyorder_papers.catalogue import ORDERS, STATES, TOPICS, Paper, load, verdict_of
from anyorder_papers.errors import PapersError

BEGIN, END = "<!-- generated: papers -->", "<!-- end of generated: papers -->"


def counts(papers: Iterable[Paper]) -> dict[str, dict[str, int]]:
    """Numbers of papers by topic, order, state and verdict, without zeros, in a fixed order."""
    listed = list(papers)
    verdicts = [verdict for verdict in map(verdict_of, listed) if verdict]
    return {
        "topic": _counted((p.topic for p in listed), TOPICS),
        "order": _counted((p.order for p in listed), ORDERS),
        "state": _counted((p.state for p in listed), STATES),
        "verdict": _counted(verdicts, sorted(set(verdicts))),
    }


def table(papers: Sequence[Paper] | None = None) -> str:
    """Return counts and all papers as Markdown, by topic.

    Args:
        papers: Papers to list (default: the catalogue of this package).
    """
    listed = load() if papers is None else tuple(papers)
    by = counts(listed)
    known = sum(bool(paper.arxiv) for paper in listed)
    parts = [
        f"{len(listed)} papers; the arXiv number of {known} is known.",
        _summary("State", by["state"], STATES),
        _summary("Order", by["order"], ORDERS),
    ]
    if by["verdict"]:
        parts.append(_summary("Verdict", by["verdict"], {}))
    for topic, label in TOPICS.items():
        rows = [_row(paper) for paper in listed if paper.topic == topic]
        if rows:
            head = (
                "| no. | paper | date | order | state | what it does |\n|--:|---|---|---|---|---|"
            )
            parts.append("\n".join([f"## {label}\n", head, *rows]))
    return "\n\n".join(parts) + "\n"


def updated(page: str) -> str:
    """Return the page with an updated generated part.

    Raises:
        PapersError: If each marker does not occur exactly once, in order.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise PapersError(f"expected the lines {BEGIN!r} and {END!r}, once each, in this order")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{table()}\n{END}{after}"


def _counted(values: Iterable[str], order: Iterable[str]) -> dict[str, int]:
    found = Counter(values)
    return {key: found[key] for key in order if found[key]}


def _summary(name: str, numbers: Mapping[str, int], meaning: Mapping[str, str]) -> str:
    rows = [f"| {key} | {number} | {meaning.get(key, '')} |" for key, number in numbers.items()]
    return "\n".join([f"| {name} | papers | meaning |", "|---|--:|---|", *rows])


def _row(paper: Paper) -> str:
    title = _cell(paper.title)
    linked = f"[{title}]({paper.url})" if paper.url else title
    state = paper.state if not paper.kind else f"{paper.state} ({paper.kind})"
    verdict = verdict_of(paper)
    cells = [
        str(paper.id),
        linked,
        paper.shown_date,
        "" if paper.order == "none" else paper.order,
        f"{state}; {verdict}" if verdict else state,
        _cell(paper.description),
    ]
    return "| " + " | ".join(cells) + " |"


def _cell(text: str) -> str:
    for mark in "\\|[]<*_`":
        text = text.replace(mark, f"\\{mark}")
    return text


def main(arguments: Sequence[str]) -> None:
    """Rewrite the generated part of the page at the path in the arguments."""
    if len(arguments) != 1:
        raise SystemExit("usage: python -m anyorder_papers.page PAGE")
    path = Path(arguments[0])
    path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

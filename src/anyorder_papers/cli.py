"""``anyorder papers``: find papers, show one, import more; and the site's commands.

A question needs no command: ``anyorder papers "little memory"`` is ``anyorder papers search
"little memory"``. Exit codes: 0 if something was found or done, 1 if nothing was found, 2 if the
request or a file cannot be used.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from anyorder.errors import AnyOrderError
from anyorder_papers import arxiv, listing, store
from anyorder_papers.catalogue import (
    NEW,
    ORDERS,
    STATES,
    TOPICS,
    UNSORTED,
    Paper,
    get,
    study_of,
    verdict_of,
)
from anyorder_papers.errors import PapersError
from anyorder_papers.search import ENGINES, Engine, search

DEFAULT = "search"
FOUND, NOTHING, UNUSABLE = 0, 1, 2
NO_VOTES: Mapping[int, int] = MappingProxyType({})
SITE_COMMANDS = ("serve", "export", "digest")
SITE_NEEDS = ("starlette", "uvicorn", "jinja2", "sqlalchemy", "multipart")
SHOWN = 10  # papers that a question shows unless told otherwise


class Sort(StrEnum):
    """What a list is sorted by."""

    DATE = "date"
    VOTES = "votes"
    TITLE = "title"


class QuestionGroup(TyperGroup):
    """A group whose command may be left out: then it is ``search``.

    The site's commands are imported when one of them, or the help, is asked for: finding a paper
    must not need a web server's libraries.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``search`` in front of arguments that name no command and ask for no help."""
        first = args[0] if args else ""
        if first not in (*self.commands, *SITE_COMMANDS, *ctx.help_option_names):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands that can be run here."""
        if _site_is_installed():
            self.commands.update(_site_commands())
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name."""
        if cmd_name in SITE_COMMANDS and cmd_name not in self.commands:
            if not _site_is_installed():
                typer.echo(
                    f"Error: {cmd_name} needs: pip install 'anyorder-papers[site]'", err=True
                )
                raise typer.Exit(UNUSABLE)
            self.commands.update(_site_commands())
        return super().get_command(ctx, cmd_name)


app = typer.Typer(
    name="papers",
    cls=QuestionGroup,
    help="Find the papers that AnyOrder grew from, and see which of them run.\n\n"
    'A question needs no command: anyorder papers "fine-tune with little memory". '
    "Run anyorder papers search --help for its options, and name search if the question is "
    "itself the name of a command.",
    add_completion=False,
    epilog="Exit codes: 0 found or done, 1 nothing found, 2 the request or a file cannot be used.",
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON only.")]


@app.command(DEFAULT)
def search_(
    query: Annotated[
        list[str] | None,
        typer.Argument(help="What the papers should be about; all papers if left out."),
    ] = None,
    topic: Annotated[str, typer.Option(help=f"Only: {', '.join(TOPICS)}.")] = "",
    order: Annotated[str, typer.Option(help=f"Only: {', '.join(ORDERS)}.")] = "",
    state: Annotated[str, typer.Option(help=f"Only: {', '.join(STATES)}.")] = "",
    sort: Annotated[
        Sort | None,
        typer.Option(help="Best match first if left out; newest first without a question."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help=f"At most so many; {SHOWN} with a question, else all.", min=1),
    ] = None,
    engine: Annotated[
        str, typer.Option(help=f"One of {', '.join(ENGINES)}; 'meaning' needs a local model.")
    ] = "words",
    as_json: JsonOption = False,
) -> None:
    """Find papers by a question and filters (the command when none is named).

    With a question and --sort, the best matches are taken first and then sorted.
    """
    with _plain_errors():
        _check_filter("topic", topic, (*TOPICS, UNSORTED))
        _check_filter("order", order, ORDERS)
        _check_filter("state", state, (*STATES, NEW))
        papers = store.all_papers()
        text = " ".join(query or ())
        scores: dict[int, float] = {}
        if text.strip():
            # search() itself refuses an engine that it does not know.
            hits = search(text, papers, engine=cast(Engine, engine))
            scores = {hit.paper.id: hit.score for hit in hits}
            papers = tuple(hit.paper for hit in hits)
        kept = [
            paper
            for paper in papers
            if topic in ("", paper.topic)
            and order in ("", paper.order)
            and state in ("", paper.state)
        ]
        votes = _votes() if sort is Sort.VOTES or as_json else NO_VOTES
        if text.strip():
            kept = kept[: limit or SHOWN]
        kept = _sorted(kept, sort or (None if text.strip() else Sort.DATE), votes)[:limit]
    if sort is Sort.VOTES and not votes:
        typer.echo("Nobody has voted yet; newest first.", err=True)
    if as_json:
        rows = [_row(paper, votes, scores.get(paper.id)) for paper in kept]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif kept:
        _print_table(kept, votes if sort is Sort.VOTES else None)
    else:
        typer.echo("No paper fits. Ask in other words, or leave a filter out.", err=True)
    raise typer.Exit(FOUND if kept else NOTHING)


@app.command()
def show(
    number: Annotated[int, typer.Argument(help="The paper's number.")], as_json: JsonOption = False
) -> None:
    """Show one paper: what it does, where it lives in the code, and what we measured."""
    with _plain_errors():
        paper = get(number, store.all_papers())
        votes = _votes()
    if as_json:
        typer.echo(json.dumps(_row(paper, votes, None), indent=2, ensure_ascii=False))
        return
    console = Console()
    console.print(Text(f"[{paper.id}] {paper.title}", style="bold"))
    if paper.description or paper.abstract:
        console.print(Text(paper.description or paper.abstract))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in _details(paper, votes):
        table.add_row(Text(name, style="dim"), Text(value))
    console.print(table)


@app.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder of saved listings, a file with an arXiv API answer, or the address of "
            "an arXiv API query."
        ),
    ],
    year: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[KEY=]YEAR",
            help="Year of the listings, where neither heading nor file name gives it; KEY is a "
            "file's name up to the first _ or dot. May be repeated: --year 2025 --year 000=2026.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Import papers into your own data folder; the shipped catalogue stays as it is.

    Papers that are known already, by arXiv number or title, are left out. The folder is that of
    ANYORDER_HOME, or where your system keeps such data.
    """
    with _plain_errors():
        added, met = store.add(_read_source(source, year or ()))
    if as_json:
        found = {"added": [p.id for p in added], "known": [p.id for p in met]}
        typer.echo(json.dumps({**found, "file": str(store.own_file())}, indent=2))
        return
    for paper in added:
        Console().print(Text(f"[{paper.id}] {paper.title}"))
    typer.echo(f"{len(added)} added to {store.own_file()}, {len(met)} known already")


def main() -> None:
    """Run the commands without the ``anyorder`` program around them."""
    app()


def _site_is_installed() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in SITE_NEEDS)


def _site_commands() -> Mapping[str, Any]:
    from anyorder_papers.site.cli import register

    site = typer.Typer()
    register(site)
    return cast(TyperGroup, typer.main.get_command(site)).commands


def _check_filter(name: str, value: str, allowed: Iterable[str]) -> None:
    if value and value not in allowed:
        raise PapersError(f"there is no {name} {value!r}; known are {', '.join(allowed)}")


def _read_source(source: str, years: Sequence[str]) -> Sequence[listing.Merged | arxiv.Preprint]:
    path = Path(source)
    if path.is_dir():
        return listing.merge(listing.read_folder(path, _years(years)))
    if years:
        raise PapersError("--year is for a folder of listings; an arXiv feed has full dates")
    if source.startswith(("http://", "https://")):
        return arxiv.parse_feed(arxiv.fetch(source))
    if path.is_file():
        return arxiv.parse_feed(path.read_bytes())
    raise PapersError(
        f"expected a folder of listings, a file with an arXiv feed or an address "
        f"(https://{arxiv.HOSTS[0]}/api/query?...), got {source!r}: there is no such file"
    )


def _years(given: Sequence[str]) -> dict[str, int]:
    """``["2025", "000=2026"]`` as years by key; the empty key stands for all others."""
    years: dict[str, int] = {}
    for text in given:
        key, _, year = text.rpartition("=")
        if not (year.isascii() and year.isdigit() and len(year) == 4):
            raise PapersError(f"expected --year YEAR or --year KEY=YEAR, got {text!r}")
        years[key] = int(year)
    return years


def _votes() -> Mapping[int, int]:
    """Votes by paper from the site's embedded database; none where there is no such file."""
    if importlib.util.find_spec("sqlalchemy") is None or not store.votes_file().exists():
        return NO_VOTES
    # Only here: without votes the list needs no database library.
    from anyorder_papers.database import Database
    from anyorder_papers.votes import counts

    database = Database()
    try:
        return counts(database)
    finally:
        database.close()


def _sorted(papers: list[Paper], sort: Sort | None, votes: Mapping[int, int]) -> list[Paper]:
    if sort is None:
        return papers
    if sort is Sort.TITLE:
        return sorted(papers, key=lambda paper: paper.title.casefold())
    newest = sorted(papers, key=_newest_first)
    if sort is Sort.VOTES:
        return sorted(newest, key=lambda paper: -votes.get(paper.id, 0))
    return newest


def _newest_first(paper: Paper) -> tuple[int, int]:
    return (-paper.when.toordinal() if paper.when else 0, paper.id)


def _row(paper: Paper, votes: Mapping[int, int], score: float | None) -> dict[str, Any]:
    row = asdict(paper)
    row["date"] = paper.shown_date
    row["url"] = paper.url
    row["verdict"] = verdict_of(paper)
    row["votes"] = votes.get(paper.id, 0)
    if score is not None:
        row["score"] = round(score, 4)
    return row


def _details(paper: Paper, votes: Mapping[int, int]) -> list[tuple[str, str]]:
    study = study_of(paper)
    measured = f"{study.verdict} (scale {study.scale})" if study else ""
    rerun = f"anyorder study run {paper.study}" if paper.study else ""
    rows = [
        ("topic", TOPICS.get(paper.topic, paper.topic)),
        ("order", "" if paper.order == "none" else f"{paper.order}: {ORDERS[paper.order]}"),
        ("state", f"{paper.state} ({paper.kind})" if paper.kind else paper.state),
        ("module", paper.module),
        ("study", paper.study),
        ("verdict", measured),
        ("run it", rerun),
        ("date", paper.shown_date),
        ("authors", "" if paper.authors is None else str(paper.authors)),
        ("votes", str(votes[paper.id]) if paper.id in votes else ""),
        ("arXiv", paper.url),
    ]
    return [(name, value) for name, value in rows if value]


def _print_table(papers: Sequence[Paper], votes: Mapping[int, int] | None) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in (
        "no.",
        "paper",
        "date",
        "order",
        "state",
        *(["votes"] if votes is not None else []),
    ):
        table.add_column(name, no_wrap=name != "paper")
    for paper in papers:
        verdict = verdict_of(paper)
        cells = [
            str(paper.id),
            paper.title,
            paper.shown_date,
            paper.order,
            f"{paper.state}; {verdict}" if verdict else paper.state,
            *([str(votes.get(paper.id, 0))] if votes is not None else []),
        ]
        # As Text, so that brackets in a title are not taken for markup.
        table.add_row(*map(Text, cells))
    Console().print(table)


@contextmanager
def _plain_errors() -> Generator[None]:
    """Print an error of ours without a traceback, and leave with 2."""
    try:
        yield
    except (AnyOrderError, OSError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(UNUSABLE) from None

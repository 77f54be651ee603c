"""``anyorder papers``: search, show and import papers, and commands of the site.

``search`` is the default command: ``anyorder papers "little memory"`` is ``anyorder papers search
"little memory"``. Exit codes: 0 for success, 1 if nothing was found, 2 if the request or a file is
invalid.
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
SHOWN = 10  # default number of papers for a query


class Sort(StrEnum):
    """Sort orders of a list."""

    DATE = "date"
    VOTES = "votes"
    TITLE = "title"


class QuestionGroup(TyperGroup):
    """A group whose default command is ``search``.

    The site's commands are imported only for running one of them or for the help, so searching does
    not require the libraries of a web server.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert ``search`` if the arguments contain neither a command nor ``--help``."""
        first = args[0] if args else ""
        if first not in (*self.commands, *SITE_COMMANDS, *ctx.help_option_names):
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all available commands."""
        if _site_is_installed():
            self.commands.update(_site_commands())
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by name."""
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
    help="Search the papers behind AnyOrder, and see which of them have code and studies.\n\n"
    'Search is the default command: anyorder papers "fine-tune with little memory". '
    "Run anyorder papers search --help for its options. Write search explicitly if the query is "
    "the name of a command.",
    add_completion=False,
    epilog="Exit codes: 0 success, 1 nothing found, 2 the request or a file is invalid.",
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON only.")]


@app.command(DEFAULT)
def search_(
    query: Annotated[
        list[str] | None,
        typer.Argument(help="Search query (default: all papers)."),
    ] = None,
    topic: Annotated[str, typer.Option(help=f"Only: {', '.join(TOPICS)}.")] = "",
    order: Annotated[str, typer.Option(help=f"Only: {', '.join(ORDERS)}.")] = "",
    state: Annotated[str, typer.Option(help=f"Only: {', '.join(STATES)}.")] = "",
    sort: Annotated[
        Sort | None,
        typer.Option(help="Default: best match first, or newest first without a query."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help=f"Maximum number of papers; default: {SHOWN} with a query.", min=1),
    ] = None,
    engine: Annotated[
        str, typer.Option(help=f"One of {', '.join(ENGINES)}; 'meaning' needs a local model.")
    ] = "words",
    as_json: JsonOption = False,
) -> None:
    """Search papers by a query and filters (the default command).

    With a query and --sort, the best matches are selected first and then sorted.
    """
    with _plain_errors():
        _check_filter("topic", topic, (*TOPICS, UNSORTED))
        _check_filter("order", order, ORDERS)
        _check_filter("state", state, (*STATES, NEW))
        papers = store.all_papers()
        text = " ".join(query or ())
        scores: dict[int, float] = {}
        if text.strip():
            # search() raises an error for an unknown engine.
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
        typer.echo("There are no votes yet; newest first.", err=True)
    if as_json:
        rows = [_row(paper, votes, scores.get(paper.id)) for paper in kept]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif kept:
        _print_table(kept, votes if sort is Sort.VOTES else None)
    else:
        typer.echo("No paper matches. Try other words or fewer filters.", err=True)
    raise typer.Exit(FOUND if kept else NOTHING)


@app.command()
def show(
    number: Annotated[int, typer.Argument(help="The paper's number.")], as_json: JsonOption = False
) -> None:
    """Show one paper: its purpose, its module, and our measurements."""
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
            help="A folder of saved listings, a file with an arXiv API response, or the URL of "
            "an arXiv API query."
        ),
    ],
    year: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[KEY=]YEAR",
            help="Year of the listings, if neither heading nor file name has one; KEY is a "
            "file's name up to the first _ or dot. May be repeated: --year 2025 --year 000=2026.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Import papers into your data folder. The catalogue of this package does not change.

    Papers that are already known, by arXiv number or title, are skipped. The folder is
    ANYORDER_HOME, or the default data folder of your system.
    """
    with _plain_errors():
        added, met = store.add(_read_source(source, year or ()))
    if as_json:
        found = {"added": [p.id for p in added], "known": [p.id for p in met]}
        typer.echo(json.dumps({**found, "file": str(store.own_file())}, indent=2))
        return
    for paper in added:
        Console().print(Text(f"[{paper.id}] {paper.title}"))
    typer.echo(f"{len(added)} added to {store.own_file()}, {len(met)} already known")


def main() -> None:
    """Run the commands without the ``anyorder`` program."""
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
        f"expected a folder of listings, a file with an arXiv feed or a URL "
        f"(https://{arxiv.HOSTS[0]}/api/query?...), got {source!r}: there is no such file"
    )


def _years(given: Sequence[str]) -> dict[str, int]:
    """Parse ``["2025", "000=2026"]`` as years by key; the empty key is for all others."""
    years: dict[str, int] = {}
    for text in given:
        key, _, year = text.rpartition("=")
        if not (year.isascii() and year.isdigit() and len(year) == 4):
            raise PapersError(f"expected --year YEAR or --year KEY=YEAR, got {text!r}")
        years[key] = int(year)
    return years


def _votes() -> Mapping[int, int]:
    """Votes by paper from the site's embedded database; empty if the file does not exist."""
    if importlib.util.find_spec("sqlalchemy") is None or not store.votes_file().exists():
        return NO_VOTES
    # Imported here, since only votes need the database library.
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
        # As Text, so that brackets in a title are not parsed as markup.
        table.add_row(*map(Text, cells))
    Console().print(table)


@contextmanager
def _plain_errors() -> Generator[None]:
    """Print expected errors without a traceback; exit with code 2."""
    try:
        yield
    except (AnyOrderError, OSError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(UNUSABLE) from None

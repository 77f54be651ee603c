"""Compare methods on about ten problems, and summarise.

Imported only when it is called: it needs the libraries of the extra ``compare``.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from anyorder.command.exits import FAILED, JsonOption, clean_errors, print_json
from anyorder.extras import require

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def suite(
    level: Annotated[str, typer.Argument(help="quick, standard or verdict.")],
    methods: Annotated[
        str | None,
        typer.Option(help="Names, MODULE:CLASS or FILE.py:CLASS, comma-separated."),
    ] = None,
    problems: Annotated[
        str | None, typer.Option(help="Problems to run, comma-separated; default: all.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Budget of a run on every problem; default: its own.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Parallel runs.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads per run; default: cores / jobs.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default: suites/LEVEL.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare methods on about ten problems, and summarise.

    quick: default settings, a few minutes. standard: one tuning of each method. verdict: several
    tunings of each method. To continue an interrupted suite, run the same command again.
    """
    with clean_errors():
        require("pydantic")
        from anyorder.compare import suite as run
        from anyorder.compare.progress import Silent, progress_for
        from anyorder.compare.report.suite import markdown

        request = run.SuiteRequest(
            level=level,
            out=out or Path("suites") / level,
            methods=_names(methods) or run.METHODS,
            problems=_names(problems),
            jobs=jobs,
            threads=threads,
            budget=budget,
        )
        console = Console()
        done = run.run_suite(
            request,
            Silent if as_json else lambda: progress_for(console),
            (lambda line: None) if as_json else (lambda line: typer.echo(f"\n{line}")),
        )
        if as_json:
            print_json(asdict(done))
        else:
            typer.echo(f"\n{markdown(done)}")
            typer.echo(f"report:  {request.out / 'suite.html'}")
            typer.echo(f"numbers: {request.out / 'suite.json'}")
        failed = run.failures(done)
        for line in failed:
            typer.echo(f"failed: {line}", err=True)
        if failed:
            raise typer.Exit(FAILED)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())

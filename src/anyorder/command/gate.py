"""Test new results of a comparison against older ones, and fail on a regression.

Imported only when it is called: it needs the libraries of the extra ``compare``.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from anyorder.command.exits import FAILED, JsonOption, clean_errors, print_json
from anyorder.extras import require

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def gate(
    new: Annotated[Path, typer.Argument(help="results.json of the new comparison.")],
    old: Annotated[Path, typer.Argument(help="results.json of the older comparison.")],
    slower: Annotated[
        str, typer.Option(help="Tolerated increase of the cost to the target: 5% or 0.05.")
    ] = "5%",
    worse: Annotated[
        str, typer.Option(help="Tolerated loss of the judged number: 1% or 0.01.")
    ] = "0%",
    axis: Annotated[
        str | None,
        typer.Option(help="Unit of the cost: seconds, forwards, calls, steps; default: budget's."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Test new results of a comparison against older ones, and fail on a regression.

    Exit code 1: a method is separably worse or slower than before, by more than the tolerance, or
    has no result any more. Exit code 2: the results cannot be compared.
    """
    with clean_errors():
        require("pydantic")
        from anyorder.compare.gate import check, regressions, share
        from anyorder.compare.store.results import load

        checks = check(
            load(new),
            load(old),
            worse=share(worse),
            slower=share(slower),
            axis=axis,  # type: ignore[arg-type] -- checked there
        )
        failed = regressions(checks)
        if as_json:
            print_json({"ok": not failed, "methods": [asdict(each) for each in checks]})
        else:
            table = Table("method", "gate", "explanation", box=None, pad_edge=False)
            for each in checks:
                table.add_row(each.method, each.status, escape(each.why))
            Console().print(table)
            typer.echo("no regression" if not failed else f"regressions: {len(failed)}")
        if failed:
            raise typer.Exit(FAILED)

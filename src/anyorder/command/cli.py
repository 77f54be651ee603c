"""The command ``anyorder``.

Commands import what they need when they run, so that ``anyorder --help`` is fast.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from anyorder import __version__
from anyorder.command.exits import (
    PROBLEM,
    JsonOption,
    clean_errors,
    named_values,
    print_json,
    show_tracebacks,
)
from anyorder.command.plugins import PluginGroup

_EPILOG = (
    "Exit codes: 0 success; 1 a comparison finished but a method in it failed; 2 wrong usage; "
    "3 the problem cannot be used; 4 folder or database cannot be used; 70 a bug; 130 interrupted."
)


app = typer.Typer(
    cls=PluginGroup,
    no_args_is_help=True,
    epilog=_EPILOG,
    pretty_exceptions_enable=False,
    help="Optimise with rankings, values, gradients or curvature, and compare methods.",
)
new_app = typer.Typer(no_args_is_help=True, help="Create files from a template.")
app.add_typer(new_app, name="new")


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="anyorder")


def _version(show: bool) -> None:
    if show:
        typer.echo(f"anyorder {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of all errors.")] = False,
) -> None:
    """Options before the command."""
    show_tracebacks(debug)


# --- Methods and problems ----------------------------------------------------------------------


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List all methods: their order, what they need, and what they do."""
    with clean_errors():
        from anyorder.command import catalogue

        rows = catalogue.methods()
        if as_json:
            print_json(rows)
            return
        table = Table("method", "order", "needs", "what it does", box=None, pad_edge=False)
        for row in rows:
            needs = ", ".join(row["needs"])
            table.add_row(row["name"], str(row["order"]), needs, escape(row["summary"]))
        Console().print(table)
        typer.echo("\nDetails of a method: anyorder show METHOD")


@app.command()
def show(
    method: Annotated[str, typer.Argument(help="A name, or MODULE:CLASS, or FILE.py:CLASS.")],
    as_json: JsonOption = False,
) -> None:
    """Show a method: its mathematics, hyper-parameters, what it needs, and its source."""
    with clean_errors():
        from anyorder.command import catalogue

        found = catalogue.method(method)
        if as_json:
            print_json(found)
            return
        console = Console()
        console.print(f"[bold]{escape(found['class'])}[/bold]  {escape(found['version'])}")
        console.print(f"order {found['order']}, needs {', '.join(found['needs'])}\n")
        console.print(found["doc"], markup=False, highlight=False)
        table = Table("option", "default", "allowed", "searched", "unit", "description", box=None)
        for row in found["options"]:
            cells = ("name", "default", "range", "search", "unit", "doc")
            table.add_row(*(escape(str(row[cell])) for cell in cells))
        console.print()
        console.print(table)
        console.print(f"\nsource: {found['source']}", markup=False, soft_wrap=True)


@app.command()
def problems(as_json: JsonOption = False) -> None:
    """List the built-in problems with their options."""
    with clean_errors():
        from anyorder.command import catalogue

        rows = catalogue.problems()
        if as_json:
            print_json(rows)
            return
        table = Table("problem", "metric", "target", "options", "description", box=None)
        for row in rows:
            judged = f"{row['metric']} ({row['goal']})"
            defaults = ", ".join(f"{name}={value!r}" for name, value in row["options"].items())
            target = "-" if row["target"] is None else f"{row['target']:g}"
            table.add_row(row["name"], judged, target, escape(defaults), escape(row["summary"]))
        Console().print(table)
        typer.echo("\nYour own problem is a Python file: anyorder check my_problem.py")


@app.command()
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="File of a problem, or its name.")],
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="NAME=VALUE: option of the problem.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Test a problem; report errors and how to fix them."""
    with clean_errors():
        from anyorder.compare.plan.limits import prices
        from anyorder.compare.run import pilot
        from anyorder.problems import check as check_problem
        from anyorder.problems import load

        problem = load(file, **named_values(option or []))
        report = check_problem(problem)
        found = pilot.pilot(problem, report=report) if report.ok else None
        if as_json:
            print_json({**report.to_dict(), **(asdict(found) if found else {})})
        else:
            Console().print(str(report), markup=False, highlight=False, soft_wrap=True)
            for line in pilot.describe(found, prices(), "nominal") if found else []:
                typer.echo(line)
        if not report.ok:
            raise typer.Exit(PROBLEM)


@new_app.command("method")
def new_method(
    name: Annotated[str, typer.Argument(help="Name, for example sign_memory.")],
    into: Annotated[Path, typer.Option(help="Folder for the two files.")] = Path(),
) -> None:
    """Create a working method and its test as a template for your own.

    In a checkout of AnyOrder the files are written to src and tests.
    """
    with clean_errors():
        from anyorder.command import scaffold

        method, test = scaffold.new_method(name, into)
        typer.echo(f"wrote {method} and {test}")
        typer.echo(f"test it:    pytest {test}")
        if scaffold.is_checkout(into):
            typer.echo(
                f"list it:    make generate; pytest tests/test_golden.py --write-golden -k {name}"
            )
            typer.echo("check all:  make check")
            method = Path(name)
        typer.echo(f"compare it: anyorder compare digits --methods adamw,{method}")


if __name__ == "__main__":
    sys.exit(main())

"""The command ``anyorder``.

Nothing heavy is imported before a command needs it, so that ``anyorder --help`` answers at once.
"""

from __future__ import annotations

import ast
import contextlib
import json
import sys
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from anyorder import __version__
from anyorder.command.plugins import PluginGroup
from anyorder.errors import AnyOrderError

OK, FAILED, USAGE, PROBLEM, STORAGE, INTERNAL, INTERRUPTED = 0, 1, 2, 3, 4, 70, 130

_EPILOG = (
    "Exit codes: 0 done; 1 a comparison finished and a method in it failed; 2 wrong usage; "
    "3 the problem cannot be used; 4 folder or database cannot be used; 70 a bug; 130 interrupted."
)


class UsageError(AnyOrderError, ValueError):
    """Something on the command line that cannot be read."""


app = typer.Typer(
    cls=PluginGroup,
    no_args_is_help=True,
    epilog=_EPILOG,
    pretty_exceptions_enable=False,
    help="Optimise with whatever your problem can tell you, and find out which method is best.",
)
new_app = typer.Typer(no_args_is_help=True, help="Begin something new from a template.")
app.add_typer(new_app, name="new")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
_debug = False


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="anyorder")


@contextlib.contextmanager
def _clean_errors() -> Generator[None]:
    """One red message for an error that this library raised on purpose, and an exit code."""
    try:
        yield
    except AnyOrderError as error:
        if _debug:
            raise
        Console(stderr=True).print(
            f"[bold red]error:[/bold red] {escape(str(error))}", highlight=False, soft_wrap=True
        )
        raise typer.Exit(_code(error)) from error
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        traceback.print_exc()
        typer.echo(f"This is a bug in anyorder: {type(error).__name__}: {error}", err=True)
        raise typer.Exit(INTERNAL) from error


def _code(error: AnyOrderError) -> int:
    """The exit code of an error, by the names of its classes: their modules may not be loaded."""
    names = {kind.__name__ for kind in type(error).__mro__}
    for name, code in (
        ("Interrupted", INTERRUPTED),
        ("ProblemError", PROBLEM),
        ("StorageError", STORAGE),
        ("ResultsError", STORAGE),
    ):
        if name in names:
            return code
    return USAGE


def _print_json(content: Any) -> None:
    typer.echo(json.dumps(content, indent=1, default=str))


def _version(wanted: bool) -> None:
    if wanted:
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
    """Options that come before the command."""
    global _debug
    _debug = debug


# --- Looking things up -------------------------------------------------------------------------


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List all methods: their order, what they ask for, and what they do."""
    with _clean_errors():
        from anyorder.command import catalogue

        rows = catalogue.methods()
        if as_json:
            _print_json(rows)
            return
        table = Table("method", "order", "asks for", "what it does", box=None, pad_edge=False)
        for row in rows:
            asks = ", ".join(row["needs"])
            table.add_row(row["name"], str(row["order"]), asks, escape(row["summary"]))
        Console().print(table)
        typer.echo("\nMore about one: anyorder show METHOD")


@app.command()
def show(
    method: Annotated[str, typer.Argument(help="A name, or MODULE:CLASS, or FILE.py:CLASS.")],
    as_json: JsonOption = False,
) -> None:
    """Show a method: its mathematics, hyper-parameters, what it asks for, and its source."""
    with _clean_errors():
        from anyorder.command import catalogue

        found = catalogue.method(method)
        if as_json:
            _print_json(found)
            return
        console = Console()
        console.print(f"[bold]{escape(found['class'])}[/bold]  {escape(found['version'])}")
        console.print(f"order {found['order']}, asks for {', '.join(found['needs'])}\n")
        console.print(found["doc"], markup=False, highlight=False)
        table = Table("option", "default", "allowed", "searched", "unit", "what it is", box=None)
        for row in found["options"]:
            cells = ("name", "default", "range", "search", "unit", "doc")
            table.add_row(*(escape(str(row[cell])) for cell in cells))
        console.print()
        console.print(table)
        console.print(f"\nsource: {found['source']}", markup=False, soft_wrap=True)


@app.command()
def problems(as_json: JsonOption = False) -> None:
    """List the built-in problems with their options."""
    with _clean_errors():
        from anyorder.command import catalogue

        rows = catalogue.problems()
        if as_json:
            _print_json(rows)
            return
        table = Table("problem", "judged by", "target", "options", "what it is", box=None)
        for row in rows:
            judged = f"{row['metric']} ({row['goal']})"
            given = ", ".join(f"{name}={value!r}" for name, value in row["options"].items())
            target = "-" if row["target"] is None else f"{row['target']:g}"
            table.add_row(row["name"], judged, target, escape(given), escape(row["summary"]))
        Console().print(table)
        typer.echo("\nA problem of your own is a Python file: anyorder check my_problem.py")


@app.command()
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A problem's file, or its name.")],
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="NAME=VALUE, for the problem.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Try a problem out, and say what is wrong with it and what to write instead."""
    with _clean_errors():
        from anyorder.compare.run import pilot as probe
        from anyorder.problems import check as check_problem
        from anyorder.problems import load

        problem = load(file, **_options(option or []))
        report = check_problem(problem)
        found = probe.probe(problem, report=report)
        if as_json:
            _print_json({**report.to_dict(), **found})
        else:
            Console().print(str(report), markup=False, highlight=False, soft_wrap=True)
            for line in probe.describe(found, probe.prices(), "nominal") if report.ok else []:
                typer.echo(line)
        if not report.ok:
            raise typer.Exit(PROBLEM)


@new_app.command("method")
def new_method(
    name: Annotated[str, typer.Argument(help="Such as sign_memory.")],
    into: Annotated[Path, typer.Option(help="Folder for the two files.")] = Path(),
) -> None:
    """Write a method that works, and its test, to be changed into yours.

    In a checkout of AnyOrder the files go to their places in src and tests.
    """
    with _clean_errors():
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


# --- Comparing ---------------------------------------------------------------------------------


@app.command()
def compare(
    problem: Annotated[str, typer.Argument(help="A built-in problem, or a file of your own.")],
    methods: Annotated[
        str | None,
        typer.Option(help="Names, MODULE:CLASS or FILE.py:CLASS, with commas; default: all."),
    ] = None,
    budget: Annotated[
        str, typer.Option(help="Of one run: 60s, 500grads, 10_000forwards, 200steps, ...")
    ] = "20s",
    tune: Annotated[int, typer.Option(help="Tuning runs per method; 0 takes the defaults.")] = 4,
    seeds: Annotated[int, typer.Option(help="Reported runs per method.")] = 3,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="METHOD.NAME=VALUE: fix it, do not tune it.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="NAME=VALUE, for the problem.")
    ] = None,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Report the default settings too.")
    ] = False,
    schedule: Annotated[
        str | None, typer.Option(help="constant or cosine; default: the problem's own.")
    ] = None,
    sampler: Annotated[str, typer.Option(help="How tuning draws: qmc, random or tpe.")] = "qmc",
    evaluations: Annotated[int, typer.Option(help="Evaluations per reported run.")] = 20,
    rates: Annotated[
        str, typer.Option(help="Prices of counted budgets: nominal, or measured here.")
    ] = "nominal",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    autocast: Annotated[
        str, typer.Option(help="Mixed precision: none, bfloat16 or float16.")
    ] = "none",
    jobs: Annotated[int, typer.Option(help="Runs at a time; times are best with 1.")] = 1,
    threads: Annotated[
        int | None, typer.Option(help="Threads per run; default: cores / jobs.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder; default: comparisons/PROBLEM-BUDGET.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="postgresql://...: machines with the same command join.")
    ] = None,
    extend: Annotated[
        bool, typer.Option("--extend", help="Add seeds or methods to what is there.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Find out which method is best on a problem, within a budget.

    Every method gets the same tuning, the same starts and batches, and the same budget. Killed or
    interrupted, the same command goes on where it was.
    """
    with _clean_errors():
        from anyorder.compare import session
        from anyorder.compare.progress import Silent, progress_for

        request = session.Request(
            problem=problem,
            methods=_methods(methods),
            out=out or Path("comparisons") / f"{Path(problem).stem}-{budget}",
            budget=budget,
            options=_options(option or []),
            sets=tuple(set_ or ()),
            tune=tune,
            seeds=seeds,
            defaults=defaults,
            sampler=sampler,
            schedule=schedule,
            evaluations=evaluations,
            rates=rates,
            device=device,
            autocast=autocast,
            jobs=jobs,
            threads=threads,
            storage=storage,
            extend=extend,
        )
        console = Console()
        progress = Silent() if as_json else progress_for(console)
        results = session.compare(request, progress)
        _conclude(results, request.out, console, as_json)


def _conclude(results: Any, out: Path, console: Console, as_json: bool) -> None:
    """Print the leaderboard, and exit with 1 if a run failed."""
    from anyorder.compare.report.terminal import leaderboard
    from anyorder.compare.stats import verdicts as statistics

    if as_json:
        rows = [vars_of(row) for row in statistics.summarise(results)]
        _print_json(
            {
                "results": str(out / "results.json"),
                "report": str(out / "report.html"),
                "methods": rows,
                "warnings": results["warnings"],
            }
        )
    else:
        console.print()
        console.print(leaderboard(results, out))
    runs = [run for method in results["methods"] for run in method["runs"]]
    if any(run["status"] == "failed" for run in runs):
        raise typer.Exit(FAILED)


def vars_of(row: Any) -> dict[str, Any]:
    """A row of the leaderboard as JSON can hold it: what is not finite becomes null."""
    import dataclasses
    import math

    fields = dataclasses.asdict(row)
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in fields.items()
    }


def _methods(text: str | None) -> tuple[str, ...]:
    if text is None:
        from anyorder import methods

        return tuple(methods.names())
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _options(texts: list[str]) -> dict[str, Any]:
    """Read ``NAME=VALUE``; a value that is a Python literal is taken as one."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise UsageError(f"expected NAME=VALUE, such as size=small, got {text!r}")
        try:
            found[name.strip()] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name.strip()] = value
    return found


if __name__ == "__main__":
    sys.exit(main())

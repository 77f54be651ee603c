"""How commands of ``anyorder`` end: exit codes, errors in red words, answers as JSON."""

from __future__ import annotations

import ast
import contextlib
import json
import traceback
from collections.abc import Generator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from anyorder.errors import AnyOrderError

OK, FAILED, USAGE, PROBLEM, STORAGE, INTERNAL, INTERRUPTED = 0, 1, 2, 3, 4, 70, 130

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
_debug = False


class UsageError(AnyOrderError, ValueError):
    """Something on the command line that cannot be read."""


def show_tracebacks(wanted: bool) -> None:
    """Whether errors that this library raises on purpose are shown with their traceback."""
    global _debug
    _debug = wanted


@contextlib.contextmanager
def clean_errors() -> Generator[None]:
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


def print_json(content: Any) -> None:
    """Print what a command found."""
    typer.echo(json.dumps(content, indent=1, default=str))


def named_values(texts: list[str]) -> dict[str, Any]:
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

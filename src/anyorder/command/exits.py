"""Exit codes, error messages and JSON output of the commands."""

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
    """An invalid argument on the command line."""


def show_tracebacks(show: bool) -> None:
    """Set whether expected errors (:class:`AnyOrderError`) are shown with their traceback."""
    global _debug
    _debug = show


@contextlib.contextmanager
def clean_errors() -> Generator[None]:
    """Turn an expected error into a red message and an exit code."""
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
    """The exit code of an error, by class name, because its module may not be imported."""
    names = {kind.__name__ for kind in type(error).__mro__}
    for name, code in (
        ("Interrupted", INTERRUPTED),
        ("ProblemError", PROBLEM),
        ("StorageError", STORAGE),
        ("ResultsError", STORAGE),
        ("SessionError", STORAGE),
    ):
        if name in names:
            return code
    return USAGE


def print_json(content: Any) -> None:
    """Print the result of a command."""
    typer.echo(json.dumps(content, indent=1, default=str))


def named_values(texts: list[str]) -> dict[str, Any]:
    """Read ``NAME=VALUE``; values are parsed as Python literals if possible."""
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

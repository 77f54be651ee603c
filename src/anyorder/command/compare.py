"""Compare methods on a problem, within a budget.

Imported only when it is called: it needs the libraries of its extra.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer
from rich.console import Console

from anyorder.command.exits import FAILED, JsonOption, clean_errors, named_values, print_json
from anyorder.extras import require

if TYPE_CHECKING:
    from anyorder.compare.store.schema import Results

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def options_of_settings() -> list[inspect.Parameter]:
    """One command-line option per setting of a comparison, with its default and help."""
    require("pydantic")
    from anyorder.compare.plan.settings import Settings

    declared: Any = Settings.__pydantic_fields__  # type: ignore[attr-defined]
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=each.default,
            annotation=Annotated[
                _plain(each.annotation),
                typer.Option(_flag(name, each.annotation), help=each.description),
            ],
        )
        for name, each in declared.items()
        if name not in ("problem", "options")
    ]


def _flag(name: str, kind: Any) -> str:
    option = name.replace("_", "-")
    return f"--{option}/--no-{option}" if kind is bool else f"--{option}"


def _plain(kind: Any) -> Any:
    """The type for the command line; choices become plain text, which the settings check."""
    if get_origin(kind) in (Union, types.UnionType):
        (inner,) = (part for part in get_args(kind) if part is not types.NoneType)
        return _plain(inner) | None
    return str if get_origin(kind) is Literal else kind


def _with_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of the settings to the signature of the command."""
    signature = inspect.signature(function, eval_str=True)
    own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    problem, methods, *rest = own
    every = [problem, methods, *options_of_settings(), *rest]
    function.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[each.replace(kind=each.KEYWORD_ONLY) for each in every]
    )
    function.__annotations__ = {each.name: each.annotation for each in every}
    return function


@app.command()
@_with_settings
def compare(
    problem: Annotated[str, typer.Argument(help="A built-in problem, or your own file.")],
    methods: Annotated[
        str | None,
        typer.Option(help="Names, MODULE:CLASS or FILE.py:CLASS, comma-separated; default: all."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="METHOD.NAME=VALUE: fix instead of tuning.")
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            "--space", help="METHOD.NAME=log:1e-5..1e-1, =linear:0..0.9 or =a|b|c: tune it there."
        ),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="NAME=VALUE: option of the problem.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder; default: comparisons/PROBLEM-BUDGET.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="postgresql://...: share the runs between machines.")
    ] = None,
    extend: Annotated[
        bool, typer.Option("--extend", help="Add seeds or methods to an existing comparison.")
    ] = False,
    as_json: JsonOption = False,
    **settings: Any,
) -> None:
    """Compare methods on a problem, within a budget.

    Every method gets the same tuning, initial points, batches and budget. To continue an
    interrupted comparison, run the same command again.
    """
    with clean_errors():
        from anyorder.compare import session
        from anyorder.compare.plan.settings import Settings
        from anyorder.compare.progress import Silent, progress_for

        chosen = Settings(problem, named_values(option or []), **settings)
        request = session.Request(
            settings=chosen,
            methods=_methods(methods),
            out=out or Path("comparisons") / f"{Path(problem).stem}-{chosen.budget}",
            sets=tuple(set_ or ()),
            spaces=tuple(space or ()),
            storage=storage,
            extend=extend,
        )
        console = Console()
        progress = Silent() if as_json else progress_for(console)
        _conclude(session.compare(request, progress), request.out, console, as_json)


def _methods(text: str | None) -> tuple[str, ...]:
    if text is None:
        from anyorder import methods

        return tuple(methods.names())
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _conclude(results: Results, out: Path, console: Console, as_json: bool) -> None:
    """Print the leaderboard, and exit with 1 if a run failed."""
    from anyorder.compare.report.terminal import leaderboard
    from anyorder.compare.stats.leaderboard import summarise

    rows = summarise(results)
    if as_json:
        print_json(
            {
                "results": str(out / "results.json"),
                "report": str(out / "report.html"),
                "methods": [_finite(dataclasses.asdict(row)) for row in rows],
                "warnings": results.warnings,
            }
        )
    else:
        console.print()
        console.print(leaderboard(results, rows, out), crop=False)
    if any(
        method.failed is not None or any(run.status == "failed" for run in method.runs)
        for method in results.methods
    ):
        raise typer.Exit(FAILED)


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the leaderboard for JSON: non-finite numbers become null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }

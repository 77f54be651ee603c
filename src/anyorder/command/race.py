"""Train a model within one total budget, without tuning by hand.

Imported only when it is called: it needs the libraries of the extra ``compare``.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from anyorder.command.exits import JsonOption, clean_errors, named_values, print_json
from anyorder.extras import require

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def race(
    problem: Annotated[str, typer.Argument(help="A built-in problem, or your own file.")],
    budget: Annotated[
        str, typer.Option(help="Total budget of everything: 10m, 2h, 30_000grads, ...")
    ] = "10m",
    memory: Annotated[
        str | None, typer.Option(help="Drop methods that need more: 8GiB, 500MB, ...")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Names, MODULE:CLASS or FILE.py:CLASS, comma-separated."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="METHOD.NAME=VALUE; a learning rate that is set is not varied."),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="NAME=VALUE: option of the problem.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of initial point and batches.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; default: all cores.")] = None,
    timeout: Annotated[
        str | None, typer.Option(help="Per run: 10m, 2h; default: 20 x its estimate.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default: races/PROBLEM-BUDGET.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a model within one total budget, without tuning by hand.

    Methods and learning rates are tried on short schedules; at least half of the budget trains the
    winner from the start. The folder gets model.pt, race.json and race.txt. To continue an
    interrupted race, run the same command again.
    """
    with clean_errors():
        require("pydantic")
        from anyorder.compare.plan.limits import bytes_in
        from anyorder.compare.racing import run_race
        from anyorder.compare.racing.request import METHODS, RaceRequest
        from anyorder.compare.report.race import text

        names = tuple(part.strip() for part in (methods or "").split(",") if part.strip())
        request = RaceRequest(
            problem=problem,
            out=out or Path("races") / f"{Path(problem).stem}-{budget}",
            budget=budget,
            methods=names or METHODS,
            options=named_values(option or []),
            sets=tuple(set_ or ()),
            memory=None if memory is None else bytes_in(memory),
            seed=seed,
            device=device,
            threads=threads,
            timeout=timeout,
        )
        found = run_race(request, (lambda line: None) if as_json else typer.echo)
        if as_json:
            print_json({"model": str(request.model), **asdict(found)})
        else:
            typer.echo(f"\n{text(found)}\nmodel: {request.model}")

"""Optimise what only a person can judge: a local page shows candidates and takes their order.

Imported only when it is called: it needs the libraries of the extra ``rank``.
"""

from __future__ import annotations

import contextlib
import socket
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from anyorder.command.exits import UsageError, clean_errors
from anyorder.extras import require

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def rank(
    task: Annotated[
        str, typer.Argument(help="FILE.py, MODULE:NAME, or a folder with a task.toml.")
    ],
    session: Annotated[
        Path | None, typer.Option(help="Folder of the session; default: rankings/TASK.")
    ] = None,
    questions: Annotated[
        int | None, typer.Option(min=1, help="Questions until the page says that it is done: 20.")
    ] = None,
    points: Annotated[
        int | None, typer.Option(min=2, help="Candidates to bring into order: 4.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=0, help="Best candidates that suffice; 0: all.")
    ] = None,
    line_search: Annotated[
        int | None, typer.Option(min=0, help="Step sizes to choose from afterwards: 2.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="First step size: 0.2.")] = None,
    mu: Annotated[float | None, typer.Option(help="First scale of the candidates: 0.1.")] = None,
    adapt: Annotated[
        bool | None,
        typer.Option("--adapt/--fixed", help="Let both follow the answers, or not: --adapt."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the candidates: 0.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others let other machines answer.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 8765,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Optimise what only a person can judge: a local page shows candidates and takes their order.

    Every answer is stored in the session's folder. After Ctrl-C, a closed page or a killed process
    the same command goes on with the same question. The folder holds best.json, the best
    parameters so far. Options other than --questions belong to the session and cannot change.
    """
    given = {
        "questions": questions,
        "points": points,
        "top": top,
        "line_search": line_search,
        "lr": lr,
        "mu": mu,
        "adapt": adapt,
        "seed": seed,
    }
    with clean_errors():
        for module in ("starlette", "uvicorn"):
            require(module, extra="rank")
        from anyorder.judging.session import Session
        from anyorder.judging.task import load_task

        loaded = load_task(task)
        folder = session or Path("rankings") / loaded.name
        options = {name: value for name, value in given.items() if value is not None}
        with contextlib.closing(Session(folder, loaded, options)) as opened:
            _serve(opened, host, port, open_)


def _serve(session: Any, host: str, port: int, show: bool) -> None:
    """Serve the page until Ctrl-C."""
    import uvicorn

    from anyorder.judging.page import create_app, is_loopback

    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}, port {port} ({error.strerror}); write --port 0 for any free "
            "port, or another --host"
        ) from error
    with listening:
        name = f"[{host}]" if ":" in host else host
        url = f"http://{name}:{listening.getsockname()[1]}/"
        answered, planned = len(session.answers), session.options["questions"]
        typer.echo(f"{answered} of {planned} questions answered, stored in {session.folder}")
        typer.echo(f"Open {url} (Ctrl-C stops; the same command goes on)")
        if not is_loopback(host):
            typer.echo("Everybody who can reach this address can see and answer.", err=True)
        if show:
            webbrowser.open(url)
        config = uvicorn.Config(
            create_app(session, host),
            access_log=False,
            server_header=False,
            log_level="warning",
            timeout_graceful_shutdown=1,
        )
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])
    typer.echo(f"\n{len(session.answers)} answers; best parameters: {session.folder / 'best.json'}")

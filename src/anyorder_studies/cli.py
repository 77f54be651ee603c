"""``anyorder study``: list, show, run and verify studies, and write their gallery."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from anyorder.errors import AnyOrderError
from anyorder_studies import harness, protocol
from anyorder_studies.discovery import discover
from anyorder_studies.gallery import entry_of, stored_studies, write_gallery
from anyorder_studies.page import claimed, command, interval, origin
from anyorder_studies.result import StudyResult, load_result
from anyorder_studies.study import SCALES, Study, StudyError
from anyorder_studies.verify import Verification, judge_again, run_again

app = typer.Typer(
    name="study",
    help="Claims of papers, measured: list, run and verify the studies.",
    no_args_is_help=True,
)
OUT = Path("studies")
COLOURS = {
    "reproduced": "green",
    "partly": "yellow",
    "not at this scale": "blue",
    "refuted": "red",
}
INTERRUPTED = 130

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON only.")]


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List all studies with their stored verdicts."""
    studies = discover()
    entries, broken = stored_studies(studies)
    results = {one.study.key: one.result for one in entries}
    rows = [_summary(study, results.get(key)) for key, study in studies.classes.items()]
    if as_json:
        _print_json({"studies": rows, "broken": broken})
        return
    table = Table(box=None)
    for heading in ("study", "paper", "title", "verdict", "scale", "seconds"):
        table.add_column(heading, no_wrap=heading != "title")
    for row in rows:
        table.add_row(
            row["key"],
            "-" if row["paper"] is None else f"\\[{row['paper']}]",
            row["title"],
            _coloured(row["verdict"]) + (f"\n({row['change']})" if row["change"] else ""),
            row["scale"] or "-",
            "-" if row["seconds"] is None else f"{row['seconds']:.1f}",
        )
    Console().print(table)
    _report_broken(broken)


@app.command()
def show(key: str, as_json: JsonOption = False) -> None:
    """Show a study: its claims, its measurements, and how to run it again."""
    with _plain_errors():
        studies = discover()
        study = studies.get(key)
        result = load_result(studies.folders[key])
        if as_json:
            _print_json({"claims": _claims(study), "result": result and result.to_json()})
            return
        console = Console()
        console.print(f"[bold]{study.title}[/bold]  ({origin(study.paper)}, {key})")
        console.print((study.__doc__ or "").strip(), style="dim", markup=False)
        if result is None:
            console.print(f"Not run yet: anyorder study run {key}")
            _print_claims(console, study)
        else:
            _print_result(console, study, result)


@app.command()
def run(
    key: str,
    scale: Annotated[str, typer.Option(help=f"One of {', '.join(SCALES)}.")] = "small",
    seeds: Annotated[
        int | None, typer.Option(help="Number of seeds (default: that of the scale).")
    ] = None,
    out: Annotated[Path, typer.Option(help="Results are written to OUT/KEY.")] = OUT,
    fresh: Annotated[bool, typer.Option(help="Discard an earlier, unfinished run.")] = False,
    store: Annotated[
        bool, typer.Option(help="For developers: also store the result in the package.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a study. An interrupted run is resumed where it stopped."""
    with _plain_errors():
        if store and (scale != "small" or seeds is not None):
            raise StudyError("stored results need --scale small; leave --seeds out")
        studies = discover()
        study = studies.get(key)(seeds=seeds)
        commit = harness.committed(type(study)) if store else None
        folder = out / key / scale
        with _progress(f"{key} ({scale})", quiet=as_json) as progress:
            try:
                results, seconds = harness.run_units(
                    study, scale, folder, fresh=fresh, progress=progress
                )
            except KeyboardInterrupt:
                typer.echo("Interrupted; run the same command again to resume.", err=True)
                raise typer.Exit(INTERRUPTED) from None
        result = harness.evaluate(study, scale, results, seconds, commit=commit)
        for target in [folder, *([studies.folders[key]] if store else [])]:
            harness.write_outcome(study, result, results, target)
        if as_json:
            _print_json(result.to_json())
        else:
            _print_result(Console(), study, result)
            typer.echo(f"Written to {folder}")


@app.command()
def verify(
    keys: Annotated[list[str] | None, typer.Argument(help="Studies (default: all).")] = None,
    fresh: Annotated[
        bool, typer.Option(help="Measure again with seeds that the stored run has not used.")
    ] = False,
    repeat: Annotated[
        bool, typer.Option(help="Repeat the stored run with its own seeds and compare the values.")
    ] = False,
    scale: Annotated[
        str | None, typer.Option(help="With --fresh: the scale (default: that of the stored run).")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Check RESULTS/KEY/result.json instead of the stored ones.")
    ] = None,
    store: Annotated[
        bool, typer.Option(help="For developers: store the verdict that was judged again.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Judge stored results again, by their own measurements or by new ones.

    Exits with 1 if a verdict flips, a claim was not measured, with --repeat a value is outside its
    stored interval, or a study cannot be used.
    """
    with _plain_errors():
        if (fresh and repeat) or (scale and not fresh) or (store and (fresh or repeat or results)):
            raise StudyError(
                "choose --fresh (with or without --scale), --repeat, or --store on its own"
            )
        studies = discover()
        outcome: dict[str, Any] = {}
        console = Console(stderr=as_json)
        for key in keys or list(studies.classes):
            study = studies.get(key)
            stored = load_result(results / key if results else studies.folders[key])
            try:
                if stored is None:
                    raise StudyError("no stored result")
                if fresh or repeat:
                    with (
                        tempfile.TemporaryDirectory() as scratch,
                        _progress(f"{key} ({scale or stored.scale})", quiet=as_json) as progress,
                    ):
                        found = run_again(
                            study, stored, Path(scratch), scale=scale, fresh=fresh,
                            progress=progress,
                        )  # fmt: skip
                else:
                    found = judge_again(study, stored)
            except StudyError as error:
                if store and stored is not None:  # the page lists the claims that wait for a run
                    harness.write_result(study(), stored, studies.folders[key])
                console.print(f"{key}: [yellow]{escape(str(error))}[/yellow]")
                outcome[key] = {"holds": False, "reason": str(error)}
                continue
            change = protocol.changes(study(), found.stored)
            outcome[key] = _verified(found, change, repeat=repeat)
            _print_verification(console, key, found, change, repeat=repeat)
            if store:
                harness.write_result(study(), found.again, studies.folders[key])
        if as_json:
            _print_json({"studies": outcome, "broken": studies.broken})
        else:
            _report_broken(studies.broken)
        broken = bool(studies.broken) and not keys
        if broken or not all(entry["holds"] for entry in outcome.values()):
            raise typer.Exit(1)


@app.command()
def gallery(folder: Annotated[Path, typer.Argument(help="Folder to write index.html to.")]) -> None:
    """Write a gallery of all stored figures as one self-contained page."""
    with _plain_errors():
        found, broken = stored_studies(discover())
        path = write_gallery(folder, list(map(entry_of, found)))
    typer.echo(f"{len(found)} {'study' if len(found) == 1 else 'studies'} in {path}")
    _report_broken(broken)


def main() -> None:
    """Run the commands without the ``anyorder`` program."""
    app()


def _summary(study: type[Study], result: StudyResult | None) -> dict[str, Any]:
    return {
        "key": study.key,
        "paper": study.paper,
        "title": study.title,
        "verdict": str(result.verdict) if result else None,
        "scale": result.scale if result else None,
        "seconds": result.seconds if result else None,
        "change": str(protocol.changes(study(), result) or "") if result else None,
    }


def _claims(study: type[Study]) -> list[dict[str, Any]]:
    return [vars(claim) for claim in study.claims]


def _print_claims(console: Console, study: type[Study]) -> None:
    for claim in study.claims:
        console.print(f"- {claim.text} Claimed: {claimed(claim)} ({claim.source}).", markup=False)


def _print_result(console: Console, study: type[Study] | Study, result: StudyResult) -> None:
    subject = study() if isinstance(study, type) else study
    change = protocol.changes(subject, result)
    badge = f" ({change})" if change else ""
    console.print(f"Verdict: {_coloured(str(result.verdict))}{badge} at scale {result.scale}")
    table = Table("claim", "claimed", "measured", "status", box=None, show_lines=True)
    for claim, status in result.judged:
        measured = interval(result.measurements[claim.quantity])
        table.add_row(claim.text, claimed(claim), measured.replace("[", "\\["), str(status))
    console.print(table)
    console.print(f"{result.seconds:.1f} s; again with: {command(result)}", style="dim")


def _verified(found: Verification, change: str | None, *, repeat: bool) -> dict[str, Any]:
    stored, again = found.verdicts
    return {
        "holds": not found.flips and (found.repeats or not repeat),
        "change": change and str(change),
        "verdict": {"stored": str(stored), "again": str(again)},
        "seeds": {"stored": list(found.stored.seeds), "again": list(found.again.seeds)},
        "scale": {"stored": found.stored.scale, "again": found.again.scale},
        "claims": [
            {
                "quantity": check.quantity,
                "stored": check.stored.to_json() | {"status": check.before},
                "again": check.now.to_json() | {"status": check.status},
                "holds": check.holds,
            }
            for check in found.checks
        ],
    }


def _print_verification(
    console: Console, key: str, found: Verification, change: str | None, *, repeat: bool
) -> None:
    before, after = map(str, found.verdicts)
    word = "[red]flips[/red]" if found.flips else "[green]stands[/green]"
    badge = f" ({change})" if change else ""
    line = f"[bold]{key}[/bold]: {_coloured(before)}{badge}, now {_coloured(after)}: {word}"
    console.print(line, soft_wrap=True)
    if found.again.seeds == found.stored.seeds == ():
        console.print("(a study without seeds: every run is the same)", style="dim")
    table = Table(box=None)
    for heading in ("claim", "stored", "status", "now", "status"):
        table.add_column(heading, overflow="fold")
    if repeat:
        table.add_column("value")
    for check in found.checks:
        row = [
            check.quantity,
            interval(check.stored),
            str(check.before or "-"),
            interval(check.now),
            str(check.status),
        ]
        if repeat:
            row.append("holds" if check.holds else "differs")
        table.add_row(*map(escape, row))
    console.print(table)


def _coloured(verdict: str | None) -> str:
    if verdict is None:
        return "[dim]not run yet[/dim]"
    return f"[{COLOURS[verdict]}]{verdict}[/{COLOURS[verdict]}]"


def _report_broken(broken: Mapping[str, str]) -> None:
    for folder, reason in broken.items():
        typer.echo(f"broken study {folder}: {reason}", err=True)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))


@contextmanager
def _plain_errors() -> Generator[None, None, None]:
    """Print expected errors, and files that cannot be used, as one line; exit with code 2."""
    try:
        yield
    except AnyOrderError as error:
        message = str(error)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        message = f"cannot use {error.filename or 'a file'} ({reason}); choose another path"
    else:
        return
    typer.echo(f"Error: {message}", err=True)
    raise typer.Exit(2)


@contextmanager
def _progress(label: str, *, quiet: bool) -> Generator[harness.Progress, None, None]:
    """A progress bar with the remaining time, on stderr."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bar:
        task = bar.add_task(label, total=None)

        def update(done: int, total: int, kept: int) -> None:
            name = f"{label}, {kept} kept" if kept else label
            bar.update(task, description=name, completed=done, total=total)

        yield update

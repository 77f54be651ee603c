"""Fine-tune a pretrained transformer on labelled texts, also where only inference fits.

Imported only when it is called.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from anyorder.command.exits import (
    INTERRUPTED,
    JsonOption,
    clean_errors,
    named_values,
    print_json,
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def finetune(
    model: Annotated[
        str, typer.Argument(help="Folder or name of a transformers model, or minilm (packaged).")
    ],
    data: Annotated[
        Path, typer.Argument(help="A .csv, .tsv or .jsonl file with the fields text and label.")
    ],
    method: Annotated[str, typer.Option(help="A method: anyorder list.")] = "mezo",
    tune: Annotated[
        str, typer.Option(help="What is trained: full, last (last layers), head or lora.")
    ] = "full",
    steps: Annotated[int, typer.Option(help="Number of steps.")] = 1000,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate; default: the recipe, else the method's.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE: another option of the method.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; default: finetuned/DATA-METHOD-TUNE.")
    ] = None,
    merge: Annotated[
        Path | None, typer.Option(help="Write all weights to this .safetensors file at the end.")
    ] = None,
    validation: Annotated[
        str, typer.Option(help="A file with the same fields, or a fraction of the data.")
    ] = "0.2",
    budget: Annotated[
        str | None, typer.Option(help="Limit on evaluations, such as 2000values or 60s.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Texts per step.")] = 16,
    length: Annotated[int, typer.Option(help="Tokens per text; the rest is cut off.")] = 64,
    layers: Annotated[int, typer.Option(help="Number of last layers, for --tune last.")] = 1,
    rank: Annotated[int, typer.Option(help="Rank, for --tune lora.")] = 8,
    head: Annotated[
        str, typer.Option(help="New layer: means (from class means, forwards only) or random.")
    ] = "means",
    schedule: Annotated[str, typer.Option(help="Of the learning rate: linear or constant.")] = (
        "linear"
    ),
    every: Annotated[int, typer.Option(help="Steps between evaluations.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of everything that is random.")] = 0,
    device: Annotated[str, typer.Option(help="Device of the model.")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a pretrained transformer on labelled texts, also where only inference fits.

    To continue an interrupted run, run the same command again: it goes on bit for bit. MeZO leaves
    a log of seeds and scalars, from which the weights can be computed again.
    """
    with clean_errors():
        from anyorder.finetune.run import Settings, finetune, save_merged

        options = named_values(set_ or []) | ({} if lr is None else {"lr": lr})
        settings = Settings(
            model, str(data), validation, method, tune, options, steps, budget, batch_size, length,
            layers, rank, head, schedule, every, seed, device,
        )  # fmt: skip
        folder = out or Path("finetuned") / f"{data.stem}-{method}-{tune}"
        report = _Printer(steps)
        try:
            found = finetune(settings, folder, (lambda row: None) if as_json else report)
        except KeyboardInterrupt:
            typer.echo("interrupted; run the same command again to continue", err=True)
            raise typer.Exit(INTERRUPTED) from None
        tuned, classes = found.pop("model"), found.pop("classes")
        if merge is not None:
            save_merged(tuned, classes, merge)
        files = {"folder": str(folder), "merged": None if merge is None else str(merge)}
        if as_json:
            print_json({**found, **files})
            return
        log = folder / "moves.seedlog"
        if log.exists():
            typer.echo(f"log of the moves: {log} ({log.stat().st_size:,} bytes)")
        if merge is not None:
            typer.echo(f"all weights: {merge}")


class _Printer:
    """Prints a line for each evaluation."""

    def __init__(self, steps: int) -> None:
        self.steps, self.began, self.first = steps, time.perf_counter(), None

    def __call__(self, row: dict[str, Any]) -> None:
        if self.first is None:
            self.first = row["step"]
            typer.echo(f"{row['trained']:,} of {row['parameters']:,} parameters are trained")
        taken = row["step"] - self.first
        pace = (time.perf_counter() - self.began) / taken if taken else 0.0
        left = f"  {pace:.2f} s/step, {pace * (self.steps - row['step']):.0f} s left" * bool(taken)
        loss = "" if row["train_loss"] is None else f"  training loss {row['train_loss']:.4f}"
        typer.echo(
            f"step {row['step']}/{self.steps}{loss}  validation loss {row['loss']:.4f}, accuracy "
            f"{row['accuracy']:.4f}{left}"
        )

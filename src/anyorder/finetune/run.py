"""One run of fine-tuning: it can be killed at any time and continues bit for bit."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from anyorder import methods
from anyorder.extras import require
from anyorder.files import replaced, write_whole
from anyorder.finetune.data import FinetuneError, held_out, read_examples
from anyorder.finetune.model import (
    TUNED,
    Batch,
    Classifier,
    counted,
    features,
    load,
    load_weights,
    merged,
    new_weights,
    set_head,
    tokenized,
)
from anyorder.finetune.recipes import recipe
from anyorder.optimizer import Optimizer
from anyorder.oracle.closures import Composite
from anyorder.oracle.ledger import BudgetExhausted
from anyorder.problems.base import evaluating, generator, minibatch, seeded
from anyorder.seed_log import Recorder, SeedLogError, read, record, resume
from anyorder.seed_log.replay import check_base

_SETTINGS, _START, _LOG = "settings.json", "start.safetensors", "moves.seedlog"
_CHECKPOINT, _CURVE = "checkpoint.pt", "curve.jsonl"
#: Settings that may change between the parts of a run; a schedule depends on the first.
_FREE = ("steps", "budget")

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run depends on.

    Args:
        model: folder or name of a model of transformers, or ``minilm``.
        data: file of examples.
        validation: a file, or a fraction of the data.
        method: name of a method of the library.
        tune: ``full``, ``last``, ``head`` or ``lora``.
        options: settings of the method, instead of those of the recipe.
        steps: number of steps.
        budget: limit on evaluations, such as ``2000values``; None is no limit.
        batch_size: texts per step.
        length: tokens per text; the rest is cut off.
        layers: number of last layers for ``last``.
        rank: rank for ``lora``.
        head: ``means`` sets the new layer from class means, ``random`` leaves it random.
        schedule: ``constant``, or ``linear`` down to 0 at the last step.
        every: steps between evaluations.
        seed: seed of the split, of new weights, batches and directions.
        device: device of the model.
    """

    model: str
    data: str
    validation: str = "0.2"
    method: str = "mezo"
    tune: str = "full"
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    steps: int = 1000
    budget: str | None = None
    batch_size: int = 16
    length: int = 64
    layers: int = 1
    rank: int = 8
    head: str = "means"
    schedule: str = "linear"
    every: int = 100
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check the settings."""
        for name, allowed in (
            ("tune", TUNED), ("head", ("means", "random")), ("schedule", ("constant", "linear"))
        ):  # fmt: skip
            if getattr(self, name) not in allowed:
                raise FinetuneError(
                    f"{name}: expected {' or '.join(allowed)}, got {getattr(self, name)!r}"
                )
        for name in ("steps", "batch_size", "length", "layers", "rank", "every"):
            if getattr(self, name) < 1:
                raise FinetuneError(f"{name}: expected at least 1, got {getattr(self, name)}")


def finetune(settings: Settings, out: Path, report: Report = lambda row: None) -> dict[str, Any]:
    """Fine-tune a model, or continue a run that was interrupted.

    ``out`` gets ``settings.json``, ``curve.jsonl`` (one line per evaluation), ``start.safetensors``
    (new layers before the first step), and ``moves.seedlog``; for methods whose steps are not moves
    along seeded directions ``checkpoint.pt`` instead of the last one.

    Args:
        settings: the settings; those of an interrupted run must be the same, except for more steps.
        out: folder of the run.
        report: called with each line of the curve.

    Returns:
        The last line of the curve, and ``"model"``: the tuned :class:`Classifier`.

    Raises:
        FinetuneError: data, model or settings cannot be used.
        SeedLogError: the log of an interrupted run is damaged or does not fit.
    """
    run = _Run(settings, out, report)
    try:
        return run.go()
    finally:
        run.stop()


def save_merged(model: Classifier, classes: list[str], path: Path) -> None:
    """Write all weights to one safetensors file, LoRA merged in; classes are in its metadata.

    Raises:
        FinetuneError: the file cannot be written.
    """
    save = _safetensors().save_file
    try:
        with replaced(path) as scratch:
            save(merged(model), scratch, metadata={"classes": json.dumps(classes)})
    except OSError as error:
        raise FinetuneError(f"cannot write {path}: {error.strerror or error}") from error


class _Run:
    """One process's part of a run."""

    def __init__(self, settings: Settings, out: Path, report: Report) -> None:
        self.settings, self.out, self.report = settings, out, report
        self.kind = methods.get(settings.method)
        _check_folder(settings, out)
        examples = read_examples(Path(settings.data))
        try:
            fraction = float(settings.validation)
        except ValueError:
            held = read_examples(Path(settings.validation), examples.classes)
        else:
            examples, held = held_out(examples, fraction, settings.seed)
        self.classes = examples.classes
        if settings.batch_size > len(examples.texts):
            raise FinetuneError(
                f"batch_size: expected at most {len(examples.texts)}, the number of training "
                f"examples, got {settings.batch_size}"
            )
        self.training = tokenized(settings.model, examples, settings.length)
        self.held = tokenized(settings.model, held, settings.length)
        self.model = load(
            settings.model, len(self.classes), tune=settings.tune, layers=settings.layers,
            rank=settings.rank, seed=settings.seed,
        ).to(settings.device)  # fmt: skip
        if settings.tune == "head":  # the encoder stays as it is
            for data in (self.training, self.held):
                data.features = features(self.model, data)
        # Dropout would be noise in differences of values.
        self.model.train("grad" in self.kind.needs)
        options = recipe(settings.method, settings.tune) | settings.options
        self.optimizer: Optimizer = self.kind(
            self.model, seed=settings.seed, budget=settings.budget, **options
        )
        write_whole(out / _SETTINGS, json.dumps(asdict(settings), indent=1) + "\n")
        self._start()
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.recorder: Recorder | None = None
        self.seconds = 0.0

    def go(self) -> dict[str, Any]:
        """Take the steps that are missing."""
        self._resume()
        optimizer, settings = self.optimizer, self.settings
        rows = _lines_until(self.out / _CURVE, self._done())
        if not rows or (rows[-1]["step"] < self._done() and self._due()):
            rows.append(self._evaluate(None))
        seen: list[Tensor] = []
        while self._done() < settings.steps:
            began = time.perf_counter()
            try:
                seen.append(self._step())
            except BudgetExhausted:
                break
            except SeedLogError:
                self._record_no_more()
                continue
            self.seconds += time.perf_counter() - began
            if self._due():
                rows.append(self._evaluate(torch.stack(seen).mean().item()))
                seen = []
        if rows[-1]["step"] < self._done():
            rows.append(self._evaluate(torch.stack(seen).mean().item() if seen else None))
        if self.recorder is not None:
            self.recorder.close()
        optimizer.eval()
        return {**rows[-1], "model": self.model.eval(), "classes": self.classes}

    def stop(self) -> None:
        """Close the log; an interrupted run leaves it without an end."""
        if self.recorder is not None:
            self.recorder.detach()

    def _done(self) -> int:
        return self.optimizer.steps + self.optimizer.skips

    def _due(self) -> bool:
        return self._done() % self.settings.every == 0 or self._done() == self.settings.steps

    def _step(self) -> Tensor:
        """Take one step, a pure function of its number, the weights and the state."""
        settings, number = self.settings, self._done()
        left = 1.0 - number / settings.steps if settings.schedule == "linear" else 1.0
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * left
        rows = minibatch(
            len(self.training.labels), settings.batch_size, seed=settings.seed, step=number
        )
        batch = self.training.take(rows, settings.device)
        closure = Composite(
            lambda: self.model(batch),
            lambda scores: F.cross_entropy(scores, batch.labels),
        )
        with seeded(generator("dropout", settings.seed, number).initial_seed()):
            loss: Any = self.optimizer.step(closure)
        return loss.detach()

    # Files -------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Write or read the new layers; another machine could not compute them bit for bit."""
        path, library = self.out / _START, _safetensors()
        if path.exists():
            load_weights(self.model, library.load_file(path))
            return
        if self.settings.head == "means":
            found = self.training.features
            if found is None:
                found = features(self.model, self.training)
            set_head(self.model.head, found, self.training.labels)
        with replaced(path) as scratch:
            library.save_file(new_weights(self.model), scratch)

    def _resume(self) -> None:
        """Continue where the files end."""
        log, checkpoint = self.out / _LOG, self.out / _CHECKPOINT
        if log.exists():
            self.recorder = resume(self.optimizer, log)
        elif checkpoint.exists():
            found = torch.load(checkpoint, map_location=self.settings.device, weights_only=False)
            load_weights(self.model, found["weights"])
            self.optimizer.load_state_dict(found["optimizer"])
        else:
            try:
                self.recorder = record(self.optimizer, log)
            except SeedLogError:
                if log.exists():
                    raise
                self._save()

    def _record_no_more(self) -> None:
        """After an error: write checkpoints if the first step is none that a log can hold."""
        if self.recorder is None or self._done():
            raise
        log = self.out / _LOG
        check_base(read(log).header, self.model)
        self.recorder.detach()
        self.recorder = None
        log.unlink()
        self._save()

    def _save(self) -> None:
        """Make what was done survive a power failure."""
        if self.recorder is not None:
            self.recorder.sync()
            return
        trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        with replaced(self.out / _CHECKPOINT) as scratch:
            torch.save(
                {"weights": trained, "optimizer": self.optimizer.state_dict()}, scratch
            )  # fmt: skip

    def _evaluate(self, loss: float | None) -> dict[str, Any]:
        """Evaluate the answer, and write a line of the curve."""
        with self.optimizer.answer():
            found = evaluate(self.model, self.held)
        trained, every = counted(self.model)
        row = {
            "step": self._done(),
            "train_loss": loss,
            **found,
            "forwards": self.optimizer.calls.forwards(),
            "seconds": round(self.seconds, 3),
            "trained": trained,
            "parameters": every,
        }
        with (self.out / _CURVE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._save()
        self.report(row)
        return row


def evaluate(model: Classifier, data: Batch) -> dict[str, float]:
    """Return ``loss`` (mean cross-entropy in nats) and ``accuracy`` on all texts."""
    with evaluating(model):
        parts = data.parts(model.head.weight.device)
        scores = torch.cat([model(part).cpu() for part in parts])
    right = int((scores.argmax(1) == data.labels).sum())
    loss = F.cross_entropy(scores, data.labels).item()
    return {"loss": loss, "accuracy": right / len(data.labels)}


def _check_folder(settings: Settings, out: Path) -> None:
    """Refuse a folder with other files, or with a run that had other settings."""
    path, new = out / _SETTINGS, asdict(settings)
    if not path.exists():
        if out.exists() and any(out.iterdir()):
            raise FinetuneError(f"{out} holds other files; choose an empty folder with --out")
        return
    old: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    free = _FREE if settings.schedule == "constant" else _FREE[1:]
    changed = [name for name in new if new[name] != old.get(name) and name not in free]
    if changed:
        pairs = ", ".join(f"{name} was {old.get(name)!r}, now {new[name]!r}" for name in changed)
        raise FinetuneError(
            f"{out} holds a run with other settings ({pairs}); write the same ones to continue it, "
            "or choose another folder with --out"
        )


def _lines_until(path: Path, step: int) -> list[dict[str, Any]]:
    """The curve up to a step; later lines, and one that was written in part, are removed."""
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n") or json.loads(line)["step"] > step:
            break
        rows.append(json.loads(line))
    write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def _safetensors() -> Any:
    return require("safetensors.torch", extra="finetune")

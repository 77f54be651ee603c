"""A run of fine-tuning: it learns, every method takes part, and it continues bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from anyorder import methods
from anyorder.finetune.data import FinetuneError
from anyorder.finetune.model import load, load_weights
from anyorder.finetune.run import Settings, finetune, save_merged
from anyorder.seed_log import SeedLogError, fingerprint, read, replay

Run = Callable[..., dict[str, Any]]


class StoppedError(Exception):
    """Stands for a process that is killed."""


@pytest.fixture
def settings(tiny: Path, texts: Path) -> Settings:
    return Settings(str(tiny), str(texts), tune="full", steps=6, every=2, length=16, batch_size=8)


def curve(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "curve.jsonl").read_text().splitlines()
    return [json.loads(line) | {"seconds": 0} for line in lines]


def test_class_means_and_mezo_learn(settings: Settings, tmp_path: Path) -> None:
    options = {"lr": 0.05, "eps": 1e-3}
    chosen = replace(settings, head="random", tune="head", options=options, steps=400, every=400)
    finetune(chosen, tmp_path / "random")
    first, last = curve(tmp_path / "random")
    assert last["loss"] < 0.9 * first["loss"]
    assert last["forwards"] == 2 * 400
    finetune(replace(settings, steps=1), tmp_path / "means")
    assert curve(tmp_path / "means")[0]["accuracy"] > 0.8  # before the first step


@pytest.mark.parametrize("name", methods.names())
def test_every_method_can_be_named(settings: Settings, tmp_path: Path, name: str) -> None:
    found = finetune(replace(settings, method=name, steps=2), tmp_path / "out")
    assert found["step"] == 2
    assert [row["step"] for row in curve(tmp_path / "out")] == [0, 2]


def test_moves_that_no_log_holds_are_kept_in_checkpoints(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that looks like MeZO until its first move."""
    from anyorder import MeZO
    from anyorder.points.composed import vectors
    from anyorder.points.directions import Dense

    class Unseeded(MeZO):
        def move_(self, direction: Any, scale: Any) -> None:
            tensors = vectors(direction, self.named_params(), self.engine)
            super().move_(Dense(tensors), scale)

    monkeypatch.setattr(methods, "get", lambda name: Unseeded)
    finetune(settings, tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"settings.json", "start.safetensors", "curve.jsonl", "checkpoint.pt"}
    assert [row["step"] for row in curve(tmp_path / "run")] == [0, 2, 4, 6]


@pytest.mark.parametrize("stop", [2, 4])
@pytest.mark.parametrize("name", ["mezo", "adamw", "schedule_free_adamw"])
def test_an_interrupted_run_continues_bit_for_bit(
    settings: Settings, tmp_path: Path, name: str, stop: int
) -> None:
    """Dropout, the schedule, the curve and the log are those of a run that was not interrupted."""
    chosen = replace(settings, method=name)
    whole = finetune(chosen, tmp_path / "whole")

    def kill(row: dict[str, Any]) -> None:
        if row["step"] == stop:
            raise StoppedError

    with pytest.raises(StoppedError):
        finetune(chosen, tmp_path / "part", kill)
    seen: list[int] = []
    again = finetune(chosen, tmp_path / "part", lambda row: seen.append(row["step"]))
    assert seen == list(range(stop + 2, 7, 2))
    assert fingerprint(again["model"]) == fingerprint(whole["model"])
    assert curve(tmp_path / "part") == curve(tmp_path / "whole")
    if name == "mezo":
        logs = [(tmp_path / part / "moves.seedlog").read_bytes() for part in ("part", "whole")]
        assert logs[0] == logs[1]
    finished = finetune(chosen, tmp_path / "part", lambda row: pytest.fail("nothing is left"))
    assert fingerprint(finished["model"]) == fingerprint(whole["model"])


def test_a_killed_process_leaves_steps_between_evaluations(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that were logged after the last line of the curve are replayed, not repeated."""
    whole = finetune(settings, tmp_path / "whole")
    from anyorder.finetune import run

    real, count = run.minibatch, [0]

    def stopping(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        if count[0] == 4:
            raise StoppedError
        return real(*args, **kwargs)

    monkeypatch.setattr(run, "minibatch", stopping)
    with pytest.raises(StoppedError):
        finetune(settings, tmp_path / "part")
    assert len(read(tmp_path / "part" / "moves.seedlog").steps) == 3
    again = finetune(settings, tmp_path / "part")
    assert count[0] == 4 + 3
    assert fingerprint(again["model"]) == fingerprint(whole["model"])


def test_the_log_gives_the_model_from_its_base(settings: Settings, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    found = finetune(settings, tmp_path / "run")
    model = load(settings.model, 2, tune="full", layers=1, rank=8, seed=0)
    load_weights(model, load_file(tmp_path / "run" / "start.safetensors"))
    assert replay(tmp_path / "run" / "moves.seedlog", model) == 6
    assert fingerprint(model) == fingerprint(found["model"])


def test_a_constant_rate_can_be_trained_on(settings: Settings, tmp_path: Path) -> None:
    chosen = replace(settings, schedule="constant")
    longer = finetune(replace(chosen, steps=8), tmp_path / "longer")
    finetune(chosen, tmp_path / "run")
    found = finetune(replace(chosen, steps=8), tmp_path / "run")
    assert fingerprint(found["model"]) == fingerprint(longer["model"])


def test_a_budget_ends_the_run(settings: Settings, tmp_path: Path) -> None:
    found = finetune(replace(settings, budget="7values"), tmp_path / "run")
    assert (found["step"], found["forwards"]) == (3, 6)
    assert [row["step"] for row in curve(tmp_path / "run")] == [0, 2, 3]
    assert read(tmp_path / "run" / "moves.seedlog").digest is not None


def test_all_weights_in_one_file(settings: Settings, tmp_path: Path) -> None:
    from safetensors import safe_open

    found = finetune(replace(settings, steps=1), tmp_path / "run")
    save_merged(found["model"], found["classes"], tmp_path / "out.safetensors")
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert json.loads(file.metadata()["classes"]) == ["bad", "good"]
        for name, value in found["model"].state_dict().items():
            assert torch.equal(file.get_tensor(name), value)


# What is refused ----------------------------------------------------------------------------------


def test_other_settings_in_the_same_folder(settings: Settings, tmp_path: Path) -> None:
    finetune(replace(settings, steps=1), tmp_path / "run")
    with pytest.raises(FinetuneError, match="other settings .seed was 0, now 1"):
        finetune(replace(settings, steps=1, seed=1), tmp_path / "run")
    with pytest.raises(FinetuneError, match="steps was 1, now 2"):  # a linear schedule
        finetune(replace(settings, steps=2), tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(FinetuneError, match="holds other files; choose an empty folder"):
        finetune(settings, tmp_path / "other")


def test_wrong_settings(settings: Settings, tmp_path: Path) -> None:
    for name, value, words in (
        ("tune", "some", "tune: expected full or last or head or lora, got 'some'"),
        ("head", "zero", "head: expected means or random"),
        ("schedule", "cosine", "schedule: expected constant or linear"),
        ("steps", 0, "steps: expected at least 1, got 0"),
    ):
        with pytest.raises(FinetuneError, match=words):
            replace(settings, **{name: value})
    with pytest.raises(FinetuneError, match="batch_size: expected at most 64"):
        finetune(replace(settings, batch_size=65), tmp_path / "run")


def test_a_damaged_log_is_not_continued(settings: Settings, tmp_path: Path) -> None:
    finetune(settings, tmp_path / "run")
    log = tmp_path / "run" / "moves.seedlog"
    content = bytearray(log.read_bytes())
    content[-60] ^= 1
    log.write_bytes(content)
    with pytest.raises(SeedLogError, match="checksum"):
        finetune(settings, tmp_path / "run")

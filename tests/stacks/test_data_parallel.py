"""DistributedDataParallel and FSDP2 under torchrun, on two processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from anyorder import methods

from .conftest import EXAMPLES

ROOT = EXAMPLES.parent.parent.parent


def alone(name: str) -> float:
    """The sum of all weights' sizes that one process finds on the whole batches."""
    datasets = pytest.importorskip("sklearn.datasets")
    torch.manual_seed(0)
    pixels, labels = datasets.load_digits(return_X_y=True)
    x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
    model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
    optimizer = methods.get(name)(model)
    for _ in range(20):
        rows = torch.randint(len(x), (64,))
        optimizer.step(lambda r=rows: cross_entropy(model(x[r]), y[r]))
    return sum(p.detach().double().abs().sum().item() for p in model.parameters())


def in_two_processes(folder: Path, path: Path, *arguments: str) -> str:
    """What a program writes under torchrun."""
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*program, str(path), *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [("ddp", "adamw"), ("ddp", "mezo"), ("fsdp", "muon")])
def test_the_example(kind: str, name: str, tmp_path: Path) -> None:
    words = in_two_processes(tmp_path, EXAMPLES / "data_parallel.py", kind, name).split()
    weights, sent = float(words[3]), int(words[6])
    assert weights == pytest.approx(alone(name), rel=1e-5)
    assert (sent > 0) == (name == "mezo")


TRAINERS = """
import os, sys
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from anyorder import methods

trainer, name = sys.argv[1:]
torch.manual_seed(0)
x, y = torch.randn(64, 8), torch.arange(64) % 2


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, x, labels):
        return {"loss": cross_entropy(self.layers(x), labels)}


model = Network()
if trainer == "transformers":
    from transformers import Trainer, TrainingArguments
    from anyorder.integrations.transformers import ClosureMixin

    rows = [{"x": a, "labels": b} for a, b in zip(x, y)]
    kind = type("Made", (ClosureMixin, Trainer), {})
    given = TrainingArguments("out", max_steps=4, save_strategy="no", report_to=[], use_cpu=True)
    optimizer = methods.get(name)(model)
    kind(model, given, train_dataset=rows, optimizers=(optimizer, None)).train()
else:
    import lightning.pytorch as lightning
    from torch.utils.data import DataLoader, TensorDataset

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.automatic_optimization = model, False

        def training_step(self, batch, index):
            self.optimizers().step(lambda: model(*batch)["loss"])

        def configure_optimizers(self):
            return methods.get(name)(model, process_group=torch.distributed.group.WORLD)

    lightning.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    ).fit(Module(), DataLoader(TensorDataset(x, y), 8))
with open(f"weights-{os.environ['RANK']}", "wb") as file:
    file.writelines(p.detach().numpy().tobytes() for p in model.parameters())
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mezo", "adahessian"])
@pytest.mark.parametrize("trainer", ["transformers", "lightning"])
def test_processes_of_trainers_stay_equal(trainer: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip(trainer)
    (tmp_path / "program.py").write_text(TRAINERS, encoding="utf-8")
    in_two_processes(tmp_path, tmp_path / "program.py", trainer, name)
    first, second = ((tmp_path / f"weights-{rank}").read_bytes() for rank in range(2))
    assert first and first == second

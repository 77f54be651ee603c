"""What type checkers say about a program of a user: right code passes, wrong code is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import anyorder
from anyorder import methods

ROOT = Path(__file__).parent.parent
#: Lines that end in `# wrong` are to be refused, and no others.
PROGRAM = """\
from collections.abc import Callable

import torch
from torch import Tensor, nn

import anyorder
from anyorder import AdamW, Composite, Optimizer
from anyorder.hyper import hyper
from anyorder.methods import adamw

model = nn.Linear(3, 1)
closure: Callable[[], Tensor] = lambda: model(torch.ones(3)).sum()

optimizer = anyorder.AdamW(model, lr=0.1)
anyorder.AdamW(model.parameters(), lr=1, betas=(0.8, 0.9), state="8bit", engine="eager", seed=3)
anyorder.Muon(model, roles={"weight": "head"}, budget="5grads", nonfinite="skip")
anyorder.SGD([{"params": model.parameters(), "lr": 0.1}], momentum=0.9, nesterov=True)
AdamW(model, lr="x")  # wrong
AdamW(model, 0.1)  # wrong
AdamW(model, learning_rate=0.1)  # wrong
AdamW(model, state="4bit")  # wrong
anyorder.Lion(model, betas=0.9)  # wrong
anyorder.Muon(model, nonfinite="pass")  # wrong
anyorder.AdamWW(model)  # wrong

loss: Tensor = optimizer.step(closure)
loss.item()
several: Tensor = optimizer.step([closure, closure])
parts: Tensor = anyorder.SSO(model).step(Composite(lambda: model(torch.ones(3)), torch.sum))
nothing: None = optimizer.step()
optimizer.step().item()  # wrong
optimizer.step(3)  # wrong
any_method: Optimizer = anyorder.MeZO(model)
count: int = any_method.calls.values

class Mine(Optimizer):
    lr: float = hyper(0.1, ge=0)


Mine(model, lr=0.2).step(closure).item()
adamw.AdamW(model, lr=0.1, engine="eager").step(closure).item()
adamw.AdamW(model, 0.1)  # wrong

result = anyorder.minimize(lambda x: (x**2).sum(), torch.ones(3), method="lion", budget="5grads")
value: float = result.fun
version: str = anyorder.__version__
"""


def wrong(program: str) -> list[int]:
    lines = enumerate(program.splitlines(), 1)
    return [number for number, line in lines if line.endswith("# wrong")]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    return path


def environment() -> dict[str, str]:
    return os.environ | {"MYPYPATH": str(ROOT / "src"), "NO_COLOR": "1"}


def test_pyright_knows_what_users_write(program: Path) -> None:
    pytest.importorskip("pyright")
    settings = {
        "typeCheckingMode": "strict",
        "extraPaths": [str(ROOT / "src")],
        "reportUnknownMemberType": "none",  # of PyTorch
        "reportUnknownArgumentType": "none",
        "reportUnknownLambdaType": "none",
        "reportUnusedExpression": "none",
    }
    (program.parent / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable],
        cwd=program.parent,
        capture_output=True,
        text=True,
        env=environment(),
    )
    found = json.loads(done.stdout)["generalDiagnostics"]
    words = {each["range"]["start"]["line"] + 1: each["message"] for each in found}
    assert sorted(words) == wrong(PROGRAM), words


@pytest.mark.slow
def test_mypy_knows_what_users_write(program: Path) -> None:
    pytest.importorskip("mypy")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", program.name],
        cwd=program.parent,
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.stderr == ""
    found = re.findall(r"^program\.py:(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    assert sorted({int(line) for line, _ in found}) == wrong(PROGRAM), done.stdout


def test_the_stub_names_what_the_package_has() -> None:
    text = (ROOT / "src/anyorder/__init__.pyi").read_text(encoding="utf-8")
    classes = re.findall(r"^class (\w+)\(_\w+\.\w+\):$", text, re.MULTILINE)
    assert classes == [methods.get(name).__name__ for name in methods.names()]
    assert set(classes) | set(anyorder.__all__) <= set(dir(anyorder))

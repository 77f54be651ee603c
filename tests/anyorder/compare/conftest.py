"""What tests of comparisons share: small plans, small problems, a report that writes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
import torch

from anyorder.compare.plan.plan import Entry, Plan
from anyorder.compare.plan.settings import Settings
from anyorder.compare.session import Request, compare
from anyorder.compare.store import results

SRC = Path(results.__file__).parents[3]
sys.path.insert(0, str(Path(__file__).parent))  # for the modules beside this one

from scale_out import Server  # noqa: E402

HEAD = """
import torch
from torch import nn
from anyorder.problems import Problem


class Line(Problem):
    target = 0.01

    def build(self, seed):
        model = nn.Linear(3, 1)
        with torch.no_grad():
            model.weight.copy_(torch.arange(3.0) + seed % 10)
            model.bias.zero_()
        return model

    def batch(self, seed, step):
        numbers = torch.Generator().manual_seed(1000 * seed + step)
        return torch.randn(8, 3, generator=numbers)

    def loss(self, model, batch):
        return model(batch).square().mean()

    def evaluate(self, model):
        with torch.no_grad():
            return {"loss": model(torch.eye(3)).square().mean().item()}
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small runs on a busy machine: several threads would mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def problem_file(tmp_path: Path) -> Callable[[str], str]:
    """Write a problem file: a least-squares problem, with ``changes`` in its class body."""

    def write(changes: str = "", name: str = "line.py") -> str:
        body = textwrap.indent(textwrap.dedent(changes), "    ")
        path = tmp_path / name
        path.write_text(HEAD + body + "\n")
        return str(path)

    return write


@pytest.fixture
def method_file(tmp_path: Path) -> Callable[[str], str]:
    """Write a file with one ``torch.optim.Optimizer``, whose step has the given body."""

    def write(body: str, name: str = "mine.py") -> str:
        path = tmp_path / name
        path.write_text(
            "import os, torch\n\n\nclass Mine(torch.optim.Optimizer):\n"
            "    def __init__(self, params, lr=0.1):\n"
            "        super().__init__(params, {'lr': lr})\n"
            "        self.count = 0\n\n"
            "    def step(self, closure):\n"
            "        self.count += 1\n" + textwrap.indent(textwrap.dedent(body), " " * 8) + "\n"
        )
        return f"{path}:Mine"

    return write


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Any]:
    """Run a small comparison without a report and return its results."""

    def run(problem: str = "quadratic", *methods: str, **changes: Any) -> Any:
        wanted: dict[str, Any] = {
            "budget": "20grads",
            "tune": 2,
            "seeds": 2,
            "threads": 1,
            "evaluations": 5,
            "twin": False,
            "defaults": False,
        }
        settings = Settings(problem, **{**wanted, **changes})
        request = Request(settings, methods or ("sgd",), tmp_path / "out")
        return compare(request, report=lambda found, out: None)

    return run


@pytest.fixture
def small_plan() -> Plan:
    """A plan of two methods, one of which has nothing to tune."""
    settings = Settings(
        "quadratic", budget="20grads", tune=3, seeds=2, schedule="constant", defaults=False,
        twin=False,
    )  # fmt: skip
    return Plan(settings, [Entry("a", "a", "1", {}, True), Entry("b", "b", "1", {}, False)], "", {})


class Command:
    """``anyorder`` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(
        self,
        *words: str,
        before: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.Popen[str]:
        """Start it and return at once; by the command ``before``, with more ``variables``."""
        environment = {**os.environ, "PYTHONPATH": str(SRC), "COLUMNS": "200", "NO_COLOR": "1"}
        environment.update(variables or {})
        return subprocess.Popen(
            [*before, sys.executable, "-m", "anyorder.command.cli", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=environment,
            **options,
        )

    def run(self, *words: str, **options: Any) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        process = self.start(*words, **options)
        out, err = process.communicate()
        return process.returncode, out, err

    def kill_after(self, runs: int, seconds: float, *words: str) -> bool:
        """Start it, wait until so many runs are done, and kill it so many seconds later.

        True if it had ended by itself before.
        """
        process = self.start(*words)
        assert process.stdout is not None
        while runs and (line := process.stdout.readline()):
            runs -= line.startswith("[")
        try:
            process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return False
        return True


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a PostgreSQL database: the one that is named, or a server of our own."""
    pytest.importorskip("psycopg2", reason="needs psycopg2")
    named = os.environ.get("ANYORDER_TEST_POSTGRES")
    if named:
        address = sqlalchemy.make_url(named).set(drivername="postgresql+psycopg2")
        engine = sqlalchemy.create_engine(address)
        with engine.begin() as connection:  # what an earlier run of the tests left
            for table in ("comparisons", "items", "locks"):
                connection.execute(sqlalchemy.text(f"DROP TABLE IF EXISTS anyorder_{table}"))
        engine.dispose()
        yield named
        return
    own = Server()
    yield own.url()
    own.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A PostgreSQL server that tests may stop and start."""
    own = Server()
    yield own
    own.close()


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs ``anyorder`` in an empty folder."""
    return Command(tmp_path)

"""Runs of two processes: the same results as one process with the whole batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anyorder.compare import session
from anyorder.compare.plan.settings import Settings
from anyorder.compare.run.pool import Pool
from anyorder.compare.session import Request, compare
from anyorder.problems import ProblemError

METHODS = ("sgd", "adamw", "mezo", "torch.optim:AdamW")

#: Every rank has its part of the batch of a single process; the wrapper averages gradients.
PARALLEL = """
def build(self, seed):
    import torch.distributed as dist
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    return nn.parallel.DistributedDataParallel(model) if dist.is_initialized() else model

def batch(self, seed, step):
    import os
    numbers = torch.Generator().manual_seed(1000 * seed + step)
    whole = torch.randn(8, 3, generator=numbers)
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    return whole[rank::size]
"""


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """One worker for all comparisons, and its helper: starting them takes seconds."""
    made = Pool(1, 1, os.devnull)
    yield made
    made.close()


def _lending(pool: Pool) -> Any:
    class Lent:
        def __init__(self, *words: Any) -> None: ...

        def __enter__(self) -> Pool:
            return pool

        def __exit__(self, *_: object) -> None: ...

    return Lent


@pytest.fixture
def run(
    pool: Pool, tmp_path: Path, problem_file: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Compare on a problem file; the names of settings and methods may change."""

    def compared(changes: str, methods: tuple[str, ...] = METHODS, **settings: Any) -> Any:
        path = problem_file(changes)
        wanted = Settings(
            path, budget="12grads", tune=0, seeds=1, evaluations=3, defaults=False, twin=False,
            threads=1,
        )  # fmt: skip
        out = tmp_path / "-".join(map(str, [len(changes), *settings.values()])).replace("/", "")
        request = Request(replace(wanted, **settings), methods, out)
        return compare(request, report=lambda found, folder: None)

    monkeypatch.setattr(session, "Pool", _lending(pool))
    return compared


def finals(found: Any) -> dict[str, float]:
    assert [method.failed for method in found.methods] == [None] * len(found.methods)
    return {method.name: method.runs[0].final.loss for method in found.methods}


@pytest.mark.slow
def test_two_processes_equal_one(run: Callable[..., Any]) -> None:
    alone = finals(run(PARALLEL))
    both = run(PARALLEL, processes=2)
    assert finals(both) == pytest.approx(alone, rel=1e-4)
    assert "--processes 2" in both.command


@pytest.mark.slow
def test_what_needs_one_process_is_refused(run: Callable[..., Any]) -> None:
    with pytest.raises(ProblemError, match="20s would end at different steps in 2 processes"):
        run(PARALLEL, processes=2, budget="20s")
    with pytest.raises(ProblemError, match="on the CPU only, got meta"):
        run(PARALLEL, processes=2, device="meta")

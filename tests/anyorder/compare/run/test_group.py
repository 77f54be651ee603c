"""Runs of two processes: the same results as one process with the whole batch."""

from __future__ import annotations

import os
import re
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


@pytest.fixture
def pool() -> Iterator[Pool]:
    """One worker for all comparisons of a test, and its helper: starting them takes seconds."""
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


SHARDED = PARALLEL.replace(
    "    return nn.parallel.DistributedDataParallel(model) if dist.is_initialized() else model\n",
    """
    if dist.is_initialized():
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for part in (model[0], model[2], model):
            fully_shard(part, mesh=mesh)
    return model
""",
)


@pytest.mark.slow
def test_sharded_parameters(run: Callable[..., Any]) -> None:
    """FSDP2: each process has a part of the parameters, and of the state of the optimizer."""
    methods = ("sgd", "adamw", "torch.optim:AdamW")
    alone, both = run(SHARDED, methods), run(SHARDED, methods, processes=2)
    assert finals(both) == pytest.approx(finals(alone), rel=1e-4)
    for one, two in zip(alone.methods, both.methods, strict=True):
        assert two.runs[0].start_hash == one.runs[0].start_hash
    state = [found.methods[1].runs[0].state_bytes for found in (alone, both)]
    assert 0.4 * state[0] < state[1] < 0.8 * state[0]
    assert "are sharded" in str(both.pilot.findings)


#: Rank 1 fails in a run, not in the pilot; rank 0 then waits for it in a collective operation.
FAILING = PARALLEL.replace(
    "    import os\n",
    """    import os
    if step >= 20 and os.environ.get("RANK") == "1":
        {fail}
""",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fail", "said"),
    [
        ("raise ValueError('no luck')", r"rank 1 of 2: ValueError at .*line\.py:\d+: no luck"),
        ("os.kill(os.getpid(), 9)", r"rank 1 of 2: the process was killed by SIGKILL"),
    ],
)
def test_the_error_of_another_rank_is_reported_and_nobody_waits(
    run: Callable[..., Any], fail: str, said: str
) -> None:
    found = run(FAILING.replace("{fail}", fail), ("sgd",), processes=2, budget="40grads")
    (record,) = found.methods[0].runs
    assert record.status == "failed"
    assert re.search(said, record.error or "") is not None, record.error


@pytest.mark.slow
def test_what_needs_one_process_is_refused(run: Callable[..., Any]) -> None:
    with pytest.raises(ProblemError, match="20s would end at different steps in 2 processes"):
        run(PARALLEL, processes=2, budget="20s")
    with pytest.raises(ProblemError, match="on the CPU only, got meta"):
        run(PARALLEL, processes=2, device="meta")

"""One byte per direction against the all-reduce of DistributedDataParallel: bytes on the wire.

Each case runs in a network namespace of its own where the system allows it, so that the counters
of its loopback interface hold what its processes sent and nothing else, with all headers and
acknowledgements of TCP. Payloads are counted by the library. Both are per step and worker.

    python benchmarks/one_byte.py
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn

from anyorder.distributed import Coordinator, OneByteMeZO
from anyorder.distributed.records import unpacked

WORKERS = (2, 4, 8)
#: Steps before and while bytes are counted.
WARMUP, STEPS = 4, 40


def network() -> nn.Module:
    """A network of 17,226 weights, as that of the problem `digits`."""
    torch.manual_seed(0)
    layers = [nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 64), nn.Tanh(), nn.Linear(64, 10)]
    return nn.Sequential(*layers)


def batch(rank: int) -> tuple[Tensor, Tensor]:
    """The data of one worker."""
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(32, 64, generator=generator)
    return x, torch.randint(0, 10, (32,), generator=generator)


def sent() -> int:
    """Bytes that went through the loopback interface."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    (counts,) = (line.split(":")[1].split() for line in lines if line.strip().startswith("lo:"))
    return int(counts[8])


def work(rank: int, size: int, kind: str, address: str, folder: str) -> None:
    """Train, and let rank 0 write what one step cost."""
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=size)
    model = network()
    x, y = batch(rank)
    if kind == "ddp":
        parallel = nn.parallel.DistributedDataParallel(model)
        optimizer: Any = torch.optim.SGD(parallel.parameters(), lr=1e-3)

        def step() -> None:
            optimizer.zero_grad()
            F.cross_entropy(parallel(x), y).backward()
            optimizer.step()
    else:
        link: dict[str, Any] = {"process_group": dist.group.WORLD}
        if kind.startswith("coordinator"):
            link = {"coordinator": address}
        link["directions"] = 32 if kind == "coordinator-32" else 1
        optimizer = OneByteMeZO(model, lr=1e-3, engine="eager", check_every=10**9, **link)

        def step() -> None:
            optimizer.step(lambda: F.cross_entropy(model(x), y))

    for _ in range(WARMUP):
        step()
    before_calls = 0 if kind == "ddp" else optimizer.calls.bytes_sent
    dist.barrier()
    time.sleep(0.5)  # what the barrier sends has arrived
    before, began = sent(), time.perf_counter()
    dist.barrier()
    after_barrier = sent()
    for _ in range(STEPS):
        step()
    seconds = time.perf_counter() - began
    dist.barrier()
    time.sleep(0.5)
    if rank == 0:
        barrier = after_barrier - before
        wire = (sent() - before - 2 * barrier) / STEPS / size
        payload = 2 * (size - 1) / size * 4 * sum(p.numel() for p in model.parameters())
        found: dict[str, Any] = {"wire_bytes": round(wire), "ms": round(1e3 * seconds / STEPS, 2)}
        if kind == "ddp":
            found["payload_bytes"] = round(payload)
        else:
            found["payload_bytes"] = (optimizer.calls.bytes_sent - before_calls) / STEPS
            found["record_bytes"] = len(optimizer.log[-1])
            assert len(unpacked(optimizer.log[-1])) == size
        Path(folder, "found").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def case(kind: str, size: int) -> dict[str, Any]:
    """Start the processes of one case and return what they found."""
    with tempfile.TemporaryDirectory() as folder:
        coordinator = Coordinator(port=0, workers=size) if kind.startswith("coordinator") else None
        address = "" if coordinator is None else coordinator.address
        mp.start_processes(work, (size, kind, address, folder), nprocs=size, start_method="spawn")
        if coordinator is not None:
            coordinator.close()
        return json.loads(Path(folder, "found").read_text())


def apart(kind: str, size: int) -> dict[str, Any]:
    """The case in a network namespace of its own, if that is allowed."""
    command = [sys.executable, __file__, "--case", kind, str(size)]
    if shutil.which("unshare") and shutil.which("ip"):
        inside = f"ip link set lo up && exec {' '.join(command)}"
        tried = subprocess.run(
            ["unshare", "--net", "sh", "-c", inside], capture_output=True, text=True
        )
        if tried.returncode == 0:
            return {**json.loads(tried.stdout.splitlines()[-1]), "own_network": True}
        print(tried.stderr[-2000:], file=sys.stderr)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "own_network": False}


def main() -> None:
    """Run one case, or all."""
    if "--case" in sys.argv:
        kind, size = sys.argv[-2:]
        print(json.dumps(case(kind, int(size))))
        return
    rows = [
        {"kind": kind, "workers": size, **apart(kind, size)}
        for size in WORKERS
        for kind in ("ddp", "process_group", "coordinator", "coordinator-32")
        if size == 4 or kind != "coordinator-32"
    ]
    weights = sum(p.numel() for p in network().parameters())
    result = {
        "unit": "bytes per step and worker; one direction per worker, or 32",
        "weights": weights,
        "steps": STEPS,
        "cases": rows,
        "note": (
            "payload: handed to the transport by one worker (of a ring all-reduce: sent by one "
            "worker). wire: through the loopback interface, all directions, with TCP/IP headers "
            "and acknowledgements, of all processes and the coordinator, divided by the workers"
        ),
    }
    common.store("one_byte", "cpu", result)


if __name__ == "__main__":
    main()

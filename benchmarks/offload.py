"""ZO2 against MeZO: memory of the weights and of the process, and time per step.

Run:
    python benchmarks/offload.py [--device cuda]

Each case runs in a process of its own, so that the memory of the process is that of the case: the
highest resident set during the steps, less the one before the model was made and after a step of a
model with one block. glibc keeps freed memory below a limit of up to 32 MB; the weights of a large
model are above it, and so that those of this small one are, too, the limit is set to 1 MB. Counted
bytes are those of blocks in memory. Times are of one process that runs all cases in turn; disk
times contain one fsync per block and step.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import device_from, paired, ratios, store
from torch import Tensor

from anyorder import MeZO
from anyorder.offload import ZO2
from anyorder.problems.stdlib_lm import Size, Transformer

CONTEXT, BATCH = 64, 4
#: Width of the model for memory, where it must be large beside the process, and for times.
WIDE, NARROW = 512, 256
CASES = ("mezo", "host", "host, ahead", "disk", "disk, ahead")
#: On a CPU, host memory is the memory of the process.
SMALLER = {"cpu": ("mezo", "disk", "disk, ahead"), "cuda": CASES}


def optimizer_of(case: str, model: Transformer, folder: str, device: str) -> Any:
    """The optimizer of a case."""
    if case == "mezo":
        return MeZO(model.to(device), lr=1e-6, engine="eager")
    where = Path(folder) / "blocks" if case.startswith("disk") else None
    ahead = case.endswith("ahead")
    return ZO2(model, lr=1e-6, folder=where, ahead=ahead, device=device, engine="eager")


def model_of(blocks: int, width: int) -> Transformer:
    """A decoder with so many blocks."""
    torch.manual_seed(0)
    size = Size(width, blocks, width // 64, BATCH, CONTEXT, 0)
    return Transformer(size, attention="math", tied=False)


def closure_of(model: Transformer, device: str) -> Any:
    """The loss of one batch."""
    tokens = torch.randint(256, (BATCH, CONTEXT + 1), device=device)

    def loss() -> Tensor:
        return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    return loss


def memory(case: str, blocks: int, device: str) -> dict[str, int]:
    """Bytes of the model, of blocks in memory, and of the process."""
    small = model_of(1, WIDE)
    optimizer_of("mezo", small, "", device).step(closure_of(small, device))
    del small
    before = _resident()
    model = model_of(blocks, WIDE)
    weights = sum(p.nbytes for p in model.parameters())
    with tempfile.TemporaryDirectory(dir=".") as folder:
        optimizer = optimizer_of(case, model, folder, device)
        closure = closure_of(model, device)
        gc.collect()
        _trim()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is that of the steps
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for _ in range(2):
            optimizer.step(closure)
        found = {"model": weights, "process": _status("VmHWM") - before}
        if case != "mezo":
            found["blocks_counted"] = optimizer.traffic.peak_bytes
            outside = weights - sum(p.nbytes for b in model.blocks for p in b.parameters())
            found["weights_counted"] = optimizer.traffic.peak_bytes + outside
        if device == "cuda":
            found["device"] = torch.cuda.max_memory_allocated()
    return found


def times(blocks: int, device: str) -> dict[str, Any]:
    """Milliseconds per step of all cases, in turn."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        steps: dict[str, Any] = {}
        for number, case in enumerate(CASES):
            model = model_of(blocks, NARROW)
            optimizer = optimizer_of(case, model, f"{folder}/{number}", device)
            closure = closure_of(model, device)
            steps[case] = lambda optimizer=optimizer, closure=closure: optimizer.step(closure)
        found = paired(steps, rounds=5, warmup=1, device=device)
    return {"times": found, "in_mezo_steps": ratios(found, "mezo")}


def main() -> None:
    """Measure and store."""
    device = device_from(sys.argv)
    result: dict[str, Any] = {
        "model": {"width": {"bytes": WIDE, "steps": NARROW}, "context": CONTEXT, "batch": BATCH},
        "bytes": {},
        "steps": {},
    }
    for blocks in (8, 16):
        result["bytes"][f"{blocks} blocks"] = {
            case: _elsewhere(case, blocks, device) for case in SMALLER[device]
        }
        result["steps"][f"{blocks} blocks"] = times(blocks, device)
    store("offload", device, result)


def _elsewhere(case: str, blocks: int, device: str) -> dict[str, int]:
    """:func:`memory` in a new process."""
    words = [sys.executable, __file__, "--case", case, str(blocks), device]
    given = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=given)
    return json.loads(done.stdout)


def _resident() -> int:
    gc.collect()
    _trim()
    return _status("VmRSS")


def _status(name: str) -> int:
    """A number of bytes that Linux says about this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def _trim() -> None:
    """Give memory that nothing uses back to the system."""
    ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        print(json.dumps(memory(sys.argv[2], int(sys.argv[3]), sys.argv[4])))
    else:
        main()

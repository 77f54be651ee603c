"""Memory of a process that takes steps, with all weights in memory or with blocks in files."""

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

from anyorder import MeZO
from anyorder.offload import ZO2
from anyorder_studies.study import StudyError
from anyorder_studies.wang2025zo2.runs import closure_of, decoder

_STATUS = Path("/proc/self/status")


def footprint(method: str, width: int, layers: int, seed: int) -> dict[str, int]:
    """Bytes of a new process that takes two steps.

    Args:
        method: ``"mezo"`` or ``"zo2"`` (blocks in files).
        width: Width of the decoder.
        layers: Number of blocks.
        seed: Seed of weights, batch and directions.

    Returns:
        ``weights`` (bytes of all weights) and ``process`` (the largest resident set during the
        steps, less the one before the model was made).

    Raises:
        StudyError: The system is not Linux.
    """
    if not _STATUS.exists():
        raise StudyError("the memory of a process is read from /proc, which only Linux has")
    words = [sys.executable, "-m", __name__, method, str(width), str(layers), str(seed)]
    # glibc keeps freed memory below a limit of up to 32 MB. The weights of a large model are above
    # it, and with this limit those of a small one are, too.
    given = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "100000"}
    run = subprocess.run(words, capture_output=True, text=True, check=False, env=given)
    if run.returncode:
        raise StudyError(f"measuring the memory of {method} failed: {run.stderr[-500:]}")
    return json.loads(run.stdout)


def _measured(method: str, width: int, layers: int, seed: int) -> dict[str, int]:
    torch.set_num_threads(1)
    small = decoder(width, 1, seed)
    MeZO(small, lr=1e-6, engine="eager").step(closure_of(small, 0))  # what a first step allocates
    del small
    before = _bytes("VmRSS")
    model = decoder(width, layers, seed)
    weights = sum(p.nbytes for p in model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"lr": 1e-6, "seed": seed, "engine": "eager"}
        optimizer: Any = (
            MeZO(model, **options) if method == "mezo" else ZO2(model, folder=folder, **options)
        )
        _bytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # from here on the peak is counted
        for step in range(2):
            optimizer.step(closure_of(model, step))
        return {"weights": weights, "process": _bytes("VmHWM") - before}


def _bytes(name: str) -> int:
    """What Linux says about this process, after unused memory was given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    lines = _STATUS.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


if __name__ == "__main__":
    method, *numbers = sys.argv[1:]
    sys.stdout.write(json.dumps(_measured(method, *map(int, numbers))))

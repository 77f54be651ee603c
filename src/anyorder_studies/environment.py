"""What a result was obtained with. No host names, users or paths."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import anyorder

PACKAGES = ("torch", "numpy", "scipy")


def environment() -> dict[str, str | int]:
    """Versions, processor model, number of threads and platform of this process."""
    import torch

    found: dict[str, str | int] = {
        "python": platform.python_version(),
        "anyorder": anyorder.__version__,
        **{name: version(name) for name in PACKAGES},
    }
    found["cpu"] = cpu_model()
    found["threads"] = torch.get_num_threads()
    found["platform"] = f"{platform.system()} {platform.machine()}"
    return found


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Model name of the processor as the system states it, or its architecture."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()

"""Where a comparison ran: versions, processor, load, and the state of the user's repository."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import anyorder

_PACKAGES = ("torch", "numpy", "optuna", "scipy", "scikit-learn")


def environment(threads: int, jobs: int, device: str) -> dict[str, Any]:
    """The environment record of ``results.json``."""
    return {
        "machine": platform.node(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "anyorder": anyorder.__version__,
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "processor": _processor(),
        "cores": cores(),
        "threads": threads,
        "jobs": jobs,
        "device": _device(device),
        "load": _load(),
        "git": _git(),
    }


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(name: str) -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return ""


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _device(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return f"{device}: {torch.cuda.get_device_name(device)}"
    return device


def _load() -> float | None:
    """Processes that were running or waiting to, over the last minute."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _git() -> dict[str, Any] | None:
    """Commit of the working folder and whether it has changes; None outside a repository."""
    try:
        commit = _git_says("rev-parse", "HEAD")
        changed = _git_says("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed": bool(changed)}


def _git_says(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, timeout=5, check=True
    )
    return done.stdout.strip()

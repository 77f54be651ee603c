"""The environment of a measurement: versions, processor, load and repository."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import anyorder

_PACKAGES = ("torch", "numpy", "optuna", "scipy", "scikit-learn")


@dataclass
class Git:
    """State of a repository."""

    commit: str
    changed: bool


@dataclass
class Environment:
    """The environment of a comparison.

    Attributes:
        computer: versions and hardware, see :func:`computer`.
        machine: name of the machine that started it.
        cores: available cores.
        threads: threads of each run.
        jobs: parallel runs.
        device: device of the models.
        load: system load at the start; None if unknown.
        git: state of the working folder; None outside a repository.
        machines: names of all machines that ran something.
    """

    computer: dict[str, str]
    machine: str
    cores: int
    threads: int
    jobs: int
    device: str
    load: float | None
    git: Git | None
    machines: list[str]


def environment(threads: int, jobs: int, device: str) -> Environment:
    """The current environment."""
    return Environment(
        computer=computer(),
        machine=platform.node(),
        cores=cores(),
        threads=threads,
        jobs=jobs,
        device=_device(device),
        load=load(),
        git=_git(),
        machines=[],
    )


def computer() -> dict[str, str]:
    """Versions, processor and platform, without names of hosts or users."""
    return {
        "python": platform.python_version(),
        "anyorder": anyorder.__version__,
        **{name: version for name in _PACKAGES if (version := _version(name))},
        "cpu": processor(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def cores() -> int:
    """Number of cores available to this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> float | None:
    """System load of the last minute; None if unknown."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):  # not available on Windows
        return None


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Model name of the processor, or its architecture."""
    with contextlib.suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return ""


def _device(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return f"{device}: {torch.cuda.get_device_name(device)}"
    return device


def _git() -> Git | None:
    """Commit of the working folder and whether it has changes; None outside a repository."""
    try:
        commit = _git_says("rev-parse", "HEAD")
        changed = _git_says("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return Git(commit, bool(changed))


def _git_says(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, timeout=5, check=True
    )
    return done.stdout.strip()

"""Identification of processes that hold claims, to detect dead ones on the same machine."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def me() -> dict[str, Any]:
    """Identify this process, so that others on the same machine can check whether it is alive."""
    return {"place": _place(), "pid": os.getpid(), "started": _started(os.getpid())}


def _place() -> str:
    """Identify this machine and its PID namespace."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _started(pid: int) -> str:
    """Start time of a process in clock ticks; empty if unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def is_dead(holder: Mapping[str, Any]) -> bool:
    """Whether the process is certainly dead; False if unknown."""
    if holder.get("place") != _place():
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return _started(holder["pid"]) != holder["started"]

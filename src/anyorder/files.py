"""Atomic writes of files, and locks on them."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def replaced(path: Path) -> Generator[Path]:
    """Yield a temporary path that atomically replaces ``path`` when the block succeeds.

    Readers never see a partial file, and a block that fails leaves the old one unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write ``text`` to a file atomically."""
    with replaced(path) as scratch:
        scratch.write_text(text, encoding="utf-8", newline="\n")


if sys.platform == "win32":
    import msvcrt

    def lock(file: Any) -> bool:
        """Lock an open file until it is closed; return whether no other process has it."""
        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def unlock(file: Any) -> None:
        """Let other processes lock the file."""
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def lock(file: Any) -> bool:
        """Lock an open file until it is closed; return whether no other process has it."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return True
        return True

    def unlock(file: Any) -> None:
        """Let other processes lock the file."""
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)

"""A lock on a folder, for what only one process may do there at a time."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

from anyorder.compare.store.storage import StorageError


@contextlib.contextmanager
def locked(out: Path, what: str) -> Generator[None]:
    """Create a folder if it is missing, and lock it during the block.

    The operating system ends the lock with the process, however that dies.

    Args:
        out: the folder.
        what: what runs there, in one word, such as ``race``.

    Raises:
        StorageError: the folder cannot be written, or another process has locked it.
    """
    path = out / f".{what}.lock"
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise StorageError(
            f"cannot write into {out}: {error.strerror or error}. Choose another folder with --out"
        ) from error
    with file:
        if not _lock(file):
            raise StorageError(
                f"another {what} runs in {out}. Wait until it has ended, or choose another folder "
                "with --out"
            )
        try:
            yield
        finally:
            _unlock(file)  # processes forked from this one have the file open too


if sys.platform == "win32":
    import msvcrt

    def _lock(file: Any) -> bool:
        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: Any) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: Any) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return True
        return True

    def _unlock(file: Any) -> None:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)

"""A lock on a folder, for what only one process may do there at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

from anyorder.compare.store.storage import StorageError
from anyorder.files import lock, unlock


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
        if not lock(file):
            raise StorageError(
                f"another {what} runs in {out}. Wait until it has ended, or choose another folder "
                "with --out"
            )
        try:
            yield
        finally:
            unlock(file)  # processes forked from this one have the file open too

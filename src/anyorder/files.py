"""Atomic writes of files."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


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

"""Where the data sets of the studies lie, and what identifies the copy that was used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from anyorder.errors import AnyOrderError

VARIABLE = "ANYORDER_DATA"


class MissingDataError(AnyOrderError, FileNotFoundError):
    """A study's data set is not where it was looked for."""


def data_folder(name: str) -> Path:
    """Folder of a data set below the one that ``ANYORDER_DATA`` names.

    Args:
        name: Name of the data set's folder, e.g. ``"email_enron_simplices"``.

    Returns:
        The existing folder.

    Raises:
        MissingDataError: If the variable is unset or holds no such folder.
    """
    root = os.environ.get(VARIABLE)
    if not root:
        raise MissingDataError(
            f"the data set {name!r} is needed: set {VARIABLE} to the folder that holds {name}/"
        )
    folder = Path(root) / name
    if not folder.is_dir():
        raise MissingDataError(
            f"the data set {name!r} is needed, but {VARIABLE} points to a folder without {name}/"
        )
    return folder


def missing_data(names: Iterable[str]) -> str | None:
    """The reason why one of the data sets cannot be read, or ``None`` when all are there."""
    for name in names:
        try:
            data_folder(name)
        except MissingDataError as error:
            return str(error)
    return None


def data_hash(names: Iterable[str]) -> str | None:
    """SHA-256 over names and contents of all files of the data sets; ``None`` without data."""
    folders = [data_folder(name) for name in names]
    if not folders:
        return None
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return files_hash((f"{path.parent.name}/{path.name}", path) for path in files)


def files_hash(files: Iterable[tuple[str, Path]]) -> str:
    """SHA-256 over pairs of a stated name and a file's contents (line ends made equal)."""
    digest = hashlib.sha256()
    for name, path in files:
        content = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()

"""Locates the data sets of studies, and computes hashes that identify them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from anyorder.errors import AnyOrderError

VARIABLE = "ANYORDER_DATA"


class MissingDataError(AnyOrderError, FileNotFoundError):
    """A study's data set does not exist."""


def data_folder(name: str) -> Path:
    """Return the folder of a data set inside the folder ``ANYORDER_DATA``.

    Args:
        name: Name of the data set's folder, e.g. ``"email_enron_simplices"``.

    Returns:
        The existing folder.

    Raises:
        MissingDataError: If the variable is not set or the folder does not exist.
    """
    root = os.environ.get(VARIABLE)
    if not root:
        raise MissingDataError(
            f"the data set {name!r} is needed: set {VARIABLE} to the folder that contains {name}/"
        )
    folder = Path(root) / name
    if not folder.is_dir():
        raise MissingDataError(
            f"the data set {name!r} is needed, but {VARIABLE} points to a folder without {name}/"
        )
    return folder


def missing_data(names: Iterable[str]) -> str | None:
    """Return why a data set cannot be read, or ``None`` if all exist."""
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
    """SHA-256 over pairs of a name and a file's contents (with normalised line ends)."""
    digest = hashlib.sha256()
    for name, path in files:
        content = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()

"""Data of the built-in problems, loaded lazily."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anyorder.problems.base import ProblemError, generator

DATA_VARIABLE = "ANYORDER_DATA"


def sklearn_datasets(problem: str) -> Any:
    """Return the module ``sklearn.datasets``.

    Raises:
        ProblemError: If scikit-learn is not installed; the message names the extra.
    """
    try:
        return importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise ProblemError(
            f"problem '{problem}' takes its data from scikit-learn, which is not installed. "
            "Write: pip install 'anyorder[compare]'"
        ) from error


def data_files(problem: str, folder: str, names: Sequence[str]) -> list[Path]:
    """Return the paths of data files below the folder that ``ANYORDER_DATA`` points to.

    Raises:
        ProblemError: If the variable is not set, or the folder or a file is missing; the message
            names the variable to set and the expected files.
    """
    expected = f"Set {DATA_VARIABLE} to a folder that contains '{folder}' with {', '.join(names)}."
    root = os.environ.get(DATA_VARIABLE, "")
    if not root:
        raise ProblemError(
            f"problem '{problem}' reads files, but {DATA_VARIABLE} is not set. {expected}"
        )
    place = Path(root) / folder
    if not place.is_dir():
        raise ProblemError(
            f"problem '{problem}' needs the folder {place}, which does not exist. {expected}"
        )
    missing = [name for name in names if not (place / name).is_file()]
    if missing:
        raise ProblemError(f"problem '{problem}' needs {', '.join(missing)} in {place}. {expected}")
    return [place / name for name in names]


def split(n: int, sizes: Sequence[int], *, key: str) -> list[Tensor]:
    """Split ``n`` samples into disjoint parts, deterministically.

    Args:
        n: Number of samples.
        sizes: Samples in each part except the last, which gets the rest.
        key: Seed of the split, as text.

    Returns:
        One index tensor per part, ``len(sizes) + 1`` in all.
    """
    order = torch.randperm(n, generator=generator("split", key))
    return list(torch.split(order, [*sizes, n - sum(sizes)]))

"""Where the built-in problems get their data; nothing is read before it is asked for."""

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
        ProblemError: If scikit-learn is not installed; names the extra that brings it.
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
        ProblemError: If the variable is not set, or the folder or a file is missing; says which
            variable to set and which files are expected.
    """
    expected = f"Set {DATA_VARIABLE} to a folder that contains '{folder}' with {', '.join(names)}."
    root = os.environ.get(DATA_VARIABLE, "")
    if not root:
        raise ProblemError(
            f"problem '{problem}' reads files, but {DATA_VARIABLE} is not set. {expected}"
        )
    place = Path(root) / folder
    if not place.is_dir():
        raise ProblemError(f"problem '{problem}' found no folder {place}. {expected}")
    missing = [name for name in names if not (place / name).is_file()]
    if missing:
        raise ProblemError(
            f"problem '{problem}' found no {', '.join(missing)} in {place}. {expected}"
        )
    return [place / name for name in names]


def split(n: int, sizes: Sequence[int], *, key: str) -> list[Tensor]:
    """Cut ``n`` samples into disjoint parts, the same ones every time.

    Args:
        n: Number of samples.
        sizes: Samples in each part but the last, which gets the rest.
        key: Names the split; another key cuts differently.

    Returns:
        One index tensor per part, ``len(sizes) + 1`` in all.
    """
    order = torch.randperm(n, generator=generator("split", key))
    return list(torch.split(order, [*sizes, n - sum(sizes)]))

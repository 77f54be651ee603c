"""Libraries that only comparisons need, imported when they are."""

from __future__ import annotations

import importlib
from types import ModuleType

from anyorder.errors import AnyOrderError


class MissingExtraError(AnyOrderError, ImportError):
    """A library that an optional part needs is not installed."""


def require(module: str, *, extra: str = "compare") -> ModuleType:
    """Import ``module``.

    Raises:
        MissingExtraError: it, or something it needs, is not installed; one line with the remedy.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{error.name or module} is not installed; write: pip install 'anyorder[{extra}]'"
        ) from error

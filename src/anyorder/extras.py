"""Optional libraries, imported on first use."""

from __future__ import annotations

import importlib
from types import ModuleType

from anyorder.errors import AnyOrderError


class MissingExtraError(AnyOrderError, ImportError):
    """A library that an optional feature needs is not installed."""


def require(module: str, *, extra: str = "compare") -> ModuleType:
    """Import ``module``.

    Raises:
        MissingExtraError: it, or one of its dependencies, is not installed; the message is one line
            that says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{error.name or module} is not installed; write: pip install 'anyorder[{extra}]'"
        ) from error

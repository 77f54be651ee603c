"""Methods, one file each. The file's name is the method's name everywhere.

The directory is scanned; there is no manual registration, and the result does not depend on
imports.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil

from anyorder.errors import AnyOrderError
from anyorder.optimizer import Optimizer
from anyorder.optimizer.population import Population


class UnknownMethodError(AnyOrderError, ValueError):
    """A method name that does not exist."""


def names() -> list[str]:
    """Return the names of all methods, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def get(name: str) -> type[Optimizer]:
    """Return the class of the method ``name`` (hyphens and underscores are equivalent).

    Raises:
        UnknownMethodError: with the nearest spelling.
    """
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UnknownMethodError(
            f"expected the name of a method, got {name!r}; write one of {', '.join(names())}"
        )
    key = name.replace("-", "_").lower()
    if key not in names():
        close = difflib.get_close_matches(key, names(), n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UnknownMethodError(
            f"there is no method {name!r}.{hint} Methods: {', '.join(names())}. Others by import "
            "path, such as torch.optim:LBFGS."
        )
    module = importlib.import_module(f"{__name__}.{key}")
    found = [
        value
        for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, Optimizer)
        and value.__module__ == module.__name__
        and value not in (Optimizer, Population)
    ]
    assert len(found) == 1, f"{module.__name__} must define exactly one method, found {found}"
    return found[0]

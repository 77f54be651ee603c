from __future__ import annotations

import importlib
import inspect
import pkgutil

import anyorder
from anyorder.errors import AnyOrderError

BUILT_IN = (ValueError, TypeError, RuntimeError, ImportError, OSError, AttributeError)


def error_classes() -> list[type[Exception]]:
    found: set[type[Exception]] = set()
    for info in pkgutil.walk_packages(anyorder.__path__, "anyorder."):
        try:
            module = importlib.import_module(info.name)
        except ImportError:  # a module of an extra that is not installed
            continue
        for _, value in inspect.getmembers(module, inspect.isclass):
            ours = value.__module__.startswith("anyorder.")
            if ours and issubclass(value, Exception) and not issubclass(value, Warning):
                found.add(value)
    return sorted(found - {AnyOrderError}, key=lambda c: c.__qualname__)


def test_every_error_is_ours_and_also_what_a_user_expects() -> None:
    found = error_classes()
    for kind in found:
        assert issubclass(kind, AnyOrderError), kind
        assert issubclass(kind, BUILT_IN), kind
        assert kind.__doc__, f"{kind.__qualname__} does not say what it means"
    assert {"BudgetError", "HyperError", "ParamsError", "ClosureError"} <= {
        k.__name__ for k in found
    }

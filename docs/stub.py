"""What type checkers read of the package ``anyorder``: every method, with its settings by name.

A checker cannot see either in the source: methods are found by scanning a folder when somebody asks
for one, and their constructors take the settings that they and their rules declare.
"""

from __future__ import annotations

import builtins
import inspect
import re

import anyorder
from anyorder import methods
from anyorder.hyper import Hyper
from anyorder.optimizer import Optimizer

STUB = """# Written by docs/generate.py; change the code, not this file.

from collections.abc import Callable
from typing import Any, Literal, TypedDict, Unpack

import torch.distributed
from torch import Tensor

{imports}

__version__: str
__all__ = [
{public}
]

class _Common(TypedDict, total=False):
{common}

{classes}
"""
CLASS = """class {cls}(_{name}.{cls}):
    def __init__(
        self,
        params: Any,
        *,
{settings}
        **common: Unpack[_Common],
    ) -> None: ...
"""
#: Names in annotations that need no import of ours.
KNOWN = {"Any", "Callable", "Literal", "Tensor", "torch", "distributed", "ProcessGroup"}


def text() -> str:
    """The whole of ``src/anyorder/__init__.pyi``."""
    kinds = {name: methods.get(name) for name in methods.names()}
    imports = {
        *(f"from anyorder.methods import {name} as _{name}" for name in kinds),
        *(f"from {getattr(anyorder, n).__module__} import {n} as {n}" for n in anyorder.__all__),
        *(line for kind in (Optimizer, *kinds.values()) for line in imported(kind)),
    }
    return STUB.format(
        imports="\n".join(sorted(imports)),
        public="\n".join(f'    "{name}",' for name in anyorder.__all__),
        common="\n".join(f"    {name}: {kind}" for name, kind in keywords(Optimizer).items()),
        classes="\n".join(constructor(name, kind) for name, kind in kinds.items()).rstrip(),
    )


def constructor(name: str, kind: type[Optimizer]) -> str:
    """The class of a method, with what its constructor takes."""
    common = keywords(Optimizer)
    settings = {key: value for key, value in keywords(kind).items() if key not in common}
    settings |= {key: annotation(declared) for key, declared in kind.hypers.items()}
    lines = (f"        {key}: {value} = ...," for key, value in settings.items())
    return CLASS.format(cls=kind.__name__, name=name, settings="\n".join(lines))


def imported(kind: type[Optimizer]) -> set[str]:
    """Imports of what the annotations of a constructor name."""
    module = inspect.getmodule(kind.__init__)
    assert module is not None
    found = (re.findall(r"(?<![.\w])\w+", value) for value in keywords(kind).values())
    words = {word for some in found for word in some}
    words -= KNOWN | set(anyorder.__all__) | set(vars(builtins))
    return {f"from {module.__name__} import {word}" for word in words}


def keywords(kind: type[Optimizer]) -> dict[str, str]:
    """The keywords of a constructor that are no settings, with their annotations."""
    return {
        name: str(parameter.annotation)
        for name, parameter in inspect.signature(kind.__init__).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def annotation(declared: Hyper) -> str:
    """The type of a setting, from its choices or its default."""
    if declared.choices is not None:
        values = ", ".join(f'"{c}"' if isinstance(c, str) else repr(c) for c in declared.choices)
        return f"Literal[{values}]"
    if declared.default is None:
        return "float | None"
    if isinstance(declared.default, tuple):
        return f"tuple[{', '.join('float' for _ in declared.default)}]"
    return type(declared.default).__name__

"""``anyorder new method``: templates of a working method and its test."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from anyorder.errors import AnyOrderError

#: Folders of methods and their tests in a checkout.
_SOURCES, _TESTS = Path("src/anyorder/methods"), Path("tests/anyorder/methods")


class ScaffoldError(AnyOrderError, ValueError):
    """An invalid method name, or a folder that cannot be written."""


_METHOD = Template('''\
"""$title: describe it in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from anyorder.hyper import hyper
from anyorder.optimizer import Optimizer
from anyorder.rules import Rule


def ${name}_(
    param: Tensor, average: Tensor, grad: Tensor, *, lr: Tensor, keep: Tensor, take: Tensor
) -> None:
    """``m <- keep m + take g``; ``x <- x - lr m``."""
    average.copy_(average * keep + grad * take)
    param.sub_(average * lr)


def _numbers(group: Mapping[str, Any], step: int) -> dict[str, float]:
    """Scalar arguments of the rule; ``step`` counts from 1."""
    return {"lr": float(group["lr"]), "keep": group["beta"], "take": 1.0 - group["beta"]}


class $cls(Optimizer):
    r"""$title: descend along an average of gradients. Describe your method here.

    .. math::
        m_t = \\beta m_{t-1} + (1 - \\beta) g_t, \\qquad x_t = x_{t-1} - \\eta m_t

    State: one buffer per parameter. Oracle calls per step: 1 gradient.

    Example:
        >>> import torch
        >>> from $module import $cls
        >>> x = torch.nn.Parameter(torch.tensor([3.0]))
        >>> optimizer = $cls([x], lr=0.5, beta=0.0)
        >>> optimizer.step(lambda: (x ** 2).sum()).item(), x.item()
        (9.0, 0.0)

    References:
        Authors, year, title, arXiv id.
    """

    order = 1
    rule = Rule(${name}_, buffers=("average",), scalars=_numbers)

    lr: float = hyper(1e-2, ge=0, search="log", low=1e-4, high=1.0, doc="step size")
    beta: float = hyper(0.9, ge=0, lt=1, doc="memory of gradients")
    weight_decay: float = hyper(0.0, ge=0, unit="1 / step size", doc="weight decay")
''')

_TEST = Template('''\
"""$cls: its formula as a plain loop, and the contract of all methods."""

from __future__ import annotations

$imports

class TestContract(MethodContract):
    method = $cls
    #: Options with which the formula below is compared; {} are the defaults.
    reference_settings = ({}, {"lr": 0.02, "beta": 0.5, "weight_decay": 0.1})

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        """The paper's formula, one number at a time; name its equation here."""
        lr, keep, decay = (options[name] for name in ("lr", "beta", "weight_decay"))
        average = {name: np.zeros_like(value) for name, value in values.items()}
        for _ in range(steps):
            gradient = world.gradient(values)
            for name, value in values.items():
                for place in np.ndindex(value.shape):
                    m = keep * average[name][place] + (1 - keep) * gradient[name][place]
                    average[name][place] = m
                    value[place] = (1 - lr * decay) * value[place] - lr * m
        return values


def test_without_memory_it_is_gradient_descent() -> None:
    """A special case: the minimum of a method's own tests."""
    x = torch.nn.Parameter(torch.tensor([3.0, -1.0]))
    $cls([x], lr=0.25, beta=0.0).step(lambda: (x**2).sum())
    assert x.tolist() == [1.5, -0.5]
''')

#: Imports of the test, for a method in the library and for a method next to its test.
_WITHIN = """\
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from $module import $cls
from anyorder.testing import MethodContract, Values, World
"""
_BESIDE = """\
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anyorder.testing import MethodContract, Values, World

sys.path.insert(0, str(Path(__file__).parent))

from $module import $cls  # noqa: E402 - next to this file
"""


def new_method(name: str, folder: Path) -> list[Path]:
    """Write ``NAME.py`` and ``test_NAME.py``.

    Args:
        name: the method's name: lower-case letters, digits and underscores.
        folder: output folder, created if missing. In a checkout of this library the files are
            written to ``src`` and ``tests``.

    Returns:
        The two files.

    Raises:
        ScaffoldError: the name is invalid, or the method or a file already exists.
    """
    from anyorder import methods

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ScaffoldError(
            f"expected a name of lower-case letters, digits and underscores, such as sign_memory, "
            f"got {name!r}"
        )
    if name in methods.names():
        raise ScaffoldError(f"the method {name} already exists; choose another name")
    within = is_checkout(folder)
    places = (folder / _SOURCES, folder / _TESTS) if within else (folder, folder)
    files = [places[0] / f"{name}.py", places[1] / f"test_{name}.py"]
    for path in files:
        if path.exists():
            raise ScaffoldError(f"{path} already exists; choose another name or --into folder")
    words = name.split("_")
    fields = {
        "name": name,
        "module": f"anyorder.methods.{name}" if within else name,
        "cls": "".join(word.capitalize() for word in words),
        "title": " ".join(words).capitalize(),
    }
    fields["imports"] = Template(_WITHIN if within else _BESIDE).substitute(fields)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, template in zip(files, (_METHOD, _TEST), strict=True):
            path.write_text(template.substitute(fields), encoding="utf-8")
    except OSError as error:
        raise ScaffoldError(f"cannot write into {folder}: {error.strerror or error}") from error
    return files


def is_checkout(folder: Path) -> bool:
    """Whether ``folder`` is a checkout of this library."""
    return (folder / _SOURCES).is_dir() and (folder / _TESTS).is_dir()

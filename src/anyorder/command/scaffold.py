"""``anyorder new method``: a method that works and its test, ready to be changed."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from anyorder.errors import AnyOrderError


class ScaffoldError(AnyOrderError, ValueError):
    """A name or a folder that no file can be made for."""


_METHOD = Template('''\
"""$title: say in one line what it does."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from anyorder.hyper import hyper
from anyorder.optimizer import Optimizer
from anyorder.oracle import Oracle


class $cls(Optimizer):
    r"""$title: descend along an average of gradients. Say here what yours does.

    .. math::
        m_t = \\beta m_{t-1} + (1 - \\beta) g_t, \\qquad x_t = x_{t-1} - \\eta m_t

    State: one buffer per parameter. Oracle calls per step: 1 gradient.

    Example:
        >>> import torch
        >>> from $name import $cls
        >>> x = torch.nn.Parameter(torch.tensor([3.0]))
        >>> optimizer = $cls([x], lr=0.5, beta=0.0)
        >>> optimizer.step(lambda: (x ** 2).sum()).item(), x.item()
        (9.0, 0.0)

    References:
        Say where it is from: authors, year, title, arXiv id.
    """

    order = 1
    needs = frozenset({"grad"})  # of: value, rank, grad, output_grad, hessian, ggn
    buffers = ("average",)

    lr: float = hyper(1e-2, ge=0, search="log", low=1e-4, high=1.0, doc="step size")
    beta: float = hyper(0.9, ge=0, lt=1, doc="memory of gradients")

    def scalars(self, group: dict[str, Any], step: int) -> dict[str, float]:
        """The numbers the rule takes, computed once per step."""
        return {"lr": float(group["lr"]), "keep": group["beta"], "take": 1.0 - group["beta"]}

    def update(self, oracle: Oracle) -> Tensor:
        """One gradient, one move."""
        loss, grads = oracle.grad()
        self.apply(${name}_, grads)
        return loss


def ${name}_(
    param: Tensor, average: Tensor, grad: Tensor, *, lr: Tensor, keep: Tensor, take: Tensor
) -> None:
    """``m <- keep m + take g``; ``x <- x - lr m``. What it writes to comes first."""
    average.copy_(average * keep + grad * take)
    param.sub_(average * lr)
''')

_TEST = Template('''\
"""$cls: its formula as a plain loop, and the contract that every method keeps."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from anyorder.testing import MethodContract

sys.path.insert(0, str(Path(__file__).parent))

from $name import $cls  # noqa: E402 - it lies beside this file


def test_follows_its_formula_in_float64() -> None:
    x = torch.nn.Parameter(torch.tensor([3.0, -1.0], dtype=torch.float64))
    optimizer = $cls([x], lr=0.1, beta=0.5)
    expected, average = x.detach().clone(), torch.zeros(2, dtype=torch.float64)
    for _ in range(5):
        optimizer.step(lambda: (x**4).sum())
        average = 0.5 * average + 0.5 * 4 * expected**3
        expected = expected - 0.1 * average
    torch.testing.assert_close(x.detach(), expected, rtol=1e-12, atol=0)


class Test$cls(MethodContract):
    method = $cls
    options = {"lr": 0.05}  # settings that suit a tiny problem
''')


def new_method(name: str, folder: Path) -> list[Path]:
    """Write ``NAME.py`` and ``test_NAME.py``.

    Args:
        name: the method's name: lower-case letters, digits and underscores.
        folder: where to; made if it does not exist.

    Returns:
        The two files.

    Raises:
        ScaffoldError: a name no module can have, a method that exists, a file that is there.
    """
    from anyorder import methods

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ScaffoldError(
            f"expected a name of lower-case letters, digits and underscores, such as sign_memory, "
            f"got {name!r}"
        )
    if name in methods.names():
        raise ScaffoldError(f"there is a method {name} already; choose another name")
    files = [folder / f"{name}.py", folder / f"test_{name}.py"]
    for path in files:
        if path.exists():
            raise ScaffoldError(f"{path} exists already; choose another name or --into folder")
    words = name.split("_")
    fields = {
        "name": name,
        "cls": "".join(word.capitalize() for word in words),
        "title": " ".join(words).capitalize(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, template in zip(files, (_METHOD, _TEST), strict=True):
            path.write_text(template.substitute(fields), encoding="utf-8")
    except OSError as error:
        raise ScaffoldError(f"cannot write into {folder}: {error.strerror or error}") from error
    return files

"""How the contract's tests of compiled rules are run: exported always, compiled in full if slow.

A C++ compiler takes five to fifteen seconds for each rule on a machine that has not met it. So the
usual run compiles the rules that other tests need as well, and those of other methods are exported
and then run as they are; ``pytest -m slow`` compiles them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch import Tensor

from anyorder import SGD, AdamW, Lion
from anyorder.engine import kernels as module
from anyorder.engine.program import Program

COMPILING = (
    "test_eager_equals_compiled",
    "test_schedule_takes_effect_without_compiling_again",
)
ALWAYS = (SGD, AdamW, Lion)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Both forms of kernels for the tests that need any."""
    method = getattr(metafunc.cls, "method", None)
    if method is None or metafunc.function.__name__ not in COMPILING:
        return
    forms: list[Any] = ["compiled"]
    if method not in ALWAYS:
        forms = ["exported", pytest.param("compiled", marks=pytest.mark.slow)]
    metafunc.parametrize("_kernels", forms, indirect=True)


@pytest.fixture(autouse=True)
def _kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels from the compiler, or rules as they were exported for it."""
    if getattr(request, "param", "compiled") == "compiled":
        yield
        return
    export = module._compile

    def kernel(program: Program, dtypes: tuple[Any, ...], *where: Any) -> Callable[..., object]:
        export(program, dtypes, *where)
        count = len(dtypes)

        def run(arguments: list[Tensor]) -> None:
            scalars = zip(program.scalars, arguments[count:], strict=True)
            program(arguments[:count], dict(scalars))

        return run

    monkeypatch.setattr(module, "_compile", kernel)
    monkeypatch.setattr(module, "_build", lambda *_: None)
    monkeypatch.setattr(module, "_load", lambda _: None)
    module.kernel_for.cache_clear()
    yield
    module.kernel_for.cache_clear()

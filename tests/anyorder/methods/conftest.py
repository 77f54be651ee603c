"""How the contract's tests of compiled rules are run: exported always, compiled in full if slow.

The usual run compiles the rule of one method, which other tests need as well. Those of the others
are exported and then run as they are; ``pytest -m slow`` compiles them all.
"""

from __future__ import annotations

from typing import Any

import pytest

from anyorder import AdamW

COMPILING = (
    "test_eager_equals_compiled",
    "test_schedule_takes_effect_without_compiling_again",
)
ALWAYS = AdamW


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Both forms of kernels for the tests that need any."""
    method = getattr(metafunc.cls, "method", None)
    if method is None or metafunc.function.__name__ not in COMPILING:
        return
    forms: list[Any] = ["compiled"]
    if method is not ALWAYS:
        forms = ["exported", pytest.param("compiled", marks=pytest.mark.slow)]
    metafunc.parametrize("_kernels", forms, indirect=True)


@pytest.fixture(autouse=True)
def _kernels(request: pytest.FixtureRequest) -> None:
    """Kernels from the compiler, or rules as they were exported for it."""
    if getattr(request, "param", "compiled") == "exported":
        request.getfixturevalue("exported_kernels")

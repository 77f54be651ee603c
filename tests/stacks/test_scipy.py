"""scipy.optimize in both directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def test_the_example(example: Callable[..., dict[str, Any]]) -> None:
    pytest.importorskip("scipy")
    found = example("scipy_minimize")
    ours, same, values, polished = (found[n] for n in ("ours", "same", "values", "polished"))
    start = found["loss"](found["start"])
    assert ours.nit == 200 and ours.njev == same.calls.grads == 200
    assert ours.fun == same.fun < values.fun < start
    assert polished.fun == pytest.approx(ours.fun, rel=1e-2)
    assert values.calls.grads == 0

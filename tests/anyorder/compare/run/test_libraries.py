"""Loops of libraries are generators; what they compute is tested with the loops that run them."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import numpy as np
import pytest

from anyorder.compare.plan.entrants import resolve
from anyorder.compare.run import libraries
from anyorder.compare.run.libraries import Gradient, Iterate, Losses, restarted, values_left
from anyorder.oracle.ledger import Budget


def test_a_loop_is_started_again_from_its_result() -> None:
    """On a flat function scipy ends at once: after some starts without an iteration, so do we."""
    tool = resolve("scipy:BFGS").tool
    assert tool is not None
    start = np.array([1.0, 2.0])
    requests: Any = restarted(tool, {}, start, 0, None)
    asked, iterates, answer = 0, [], None
    with pytest.raises(StopIteration) as ended:
        while True:
            request = requests.send(answer)
            answer = None
            if isinstance(request, Gradient):
                asked, answer = asked + 1, (0.0, np.zeros(2))
            elif isinstance(request, Losses):
                answer = [0.0] * len(request.points)
            else:
                assert isinstance(request, Iterate)
                iterates.append(request.point)
    assert len(iterates) == libraries.IDLE_STARTS
    assert all(np.array_equal(point, start) for point in (*iterates, ended.value.value))
    assert asked >= libraries.IDLE_STARTS


def test_losses_that_a_budget_allows() -> None:
    assert values_left(Budget(forwards=10.0, rates={"values": 2.0})) == 5
    assert values_left(Budget(seconds=1.0)) is None


def test_a_library_that_catches_the_end_is_ended_too() -> None:
    def stubborn(ask: Any) -> Any:
        for _ in range(3):
            with contextlib.suppress(BaseException):  # as some C code does
                ask(Losses([np.zeros(1)]))
        return np.zeros(1)

    requests = libraries._inverted(stubborn)
    next(requests)
    requests.close()
    assert "anyorder loop" not in [each.name for each in threading.enumerate()]

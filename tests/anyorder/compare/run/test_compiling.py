"""Seconds of compiling, of rules and of models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from anyorder.compare.run.compiling import compiled
from anyorder.engine import kernels
from anyorder.engine.kernels import compile_seconds, kernel_for


def test_kernels_that_are_made_or_loaded_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]

    def compile_(*_: Any) -> Any:
        now[0] += 7.0
        return print

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr(kernels, "_compile", compile_)
    program: Any = object()
    rules, models = compiled()
    before = compile_seconds()
    for _ in range(2):  # the second time it is there
        kernel_for(program, (torch.float32,), torch.device("cpu"), 1)
    assert compile_seconds() - before == pytest.approx(7.0)
    assert compiled() == (pytest.approx(rules + 7.0), models)


def test_models_that_are_compiled_in_a_step_are_counted() -> None:
    torch._dynamo.reset()  # too many compiled before, and this one would not be
    rules, before = compiled()
    model: Any = torch.compile(nn.Linear(3, 2), backend="aot_eager")
    assert compiled() == (rules, before)  # nothing until it is called
    model(torch.ones(4, 3)).sum().backward()
    rules_after, once = compiled()
    assert once > before
    model(torch.ones(4, 3)).sum().backward()
    assert compiled() == (rules_after, once)
    assert rules_after == rules

"""The command ``anyorder gate``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "compare"))  # for judged_results

import judged_results

from anyorder.compare.store.schema import text_of


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., Path]:
    """Write results of one method with this loss."""

    def write(name: str, loss: float, seeds: int = 9) -> Path:
        losses = [loss + 0.001 * seed for seed in range(seeds)]
        found = judged_results.results(judged_results.method("a", losses))
        found.plan = replace(found.plan, settings=replace(found.plan.settings, seeds=seeds))
        path = tmp_path / name
        path.write_text(text_of(found))
        return path

    return write


def test_exit_codes(call: Callable[..., Any], stored: Callable[..., Path]) -> None:
    old, same, worse = stored("old", 1.0), stored("same", 1.0), stored("worse", 1.5)
    found = call("gate", same, old)
    assert (found.code, found.out.splitlines()[-1]) == (0, "no regression")
    found = call("gate", worse, old)
    assert (found.code, found.out.splitlines()[-1]) == (1, "regressions: 1")
    assert call("gate", worse, old, "--worse", "60%").code == 0
    assert call("gate", old, worse).code == 0  # better


def test_json(call: Callable[..., Any], stored: Callable[..., Path]) -> None:
    found = call("gate", stored("new", 2.0), stored("old", 1.0), "--json")
    content = json.loads(found.out)
    assert found.code == 1
    assert content["ok"] is False
    assert [(each["method"], each["status"]) for each in content["methods"]] == [("a", "worse")]


def test_errors(call: Callable[..., Any], stored: Callable[..., Path], tmp_path: Path) -> None:
    old = stored("old", 1.0)
    found = call("gate", stored("few", 1.0, 3), stored("few too", 1.0, 3))
    assert found.code == 2
    assert "3 seeds cannot show a regression" in found.err
    assert call("gate", old, tmp_path / "none").code == 4
    assert call("gate", old, old, "--slower", "fast").code == 2

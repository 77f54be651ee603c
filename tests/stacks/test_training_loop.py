"""A loop written for torch.optim: one import is all that changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from .conftest import EXAMPLES

PAGE = Path(__file__).parent.parent.parent / "docs" / "stacks" / "migration.md"


def diff() -> tuple[list[str], list[str]]:
    """The lines that the page takes out and puts in."""
    block = PAGE.read_text(encoding="utf-8").split("```diff\n", 1)[1].split("```", 1)[0]
    lines = block.splitlines()
    return tuple([w[1:].strip() for w in lines if w.startswith(sign)] for sign in "-+")  # type: ignore[return-value]


def test_the_example_is_a_loop_of_torch_but_for_the_lines_of_the_diff(
    example: Callable[..., dict[str, Any]],
) -> None:
    ours = example("training_loop")
    taken, put = diff()
    assert len(taken) == len(put) == 1
    text = (EXAMPLES / "training_loop.py").read_text(encoding="utf-8")
    assert text.count(f"\n{put[0]}\n") == 1
    before = text.replace(put[0], taken[0])
    assert "anyorder" not in before
    theirs: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(before, "the loop of torch", "exec"), theirs)
    assert isinstance(theirs["optimizer"], torch.optim.AdamW)
    assert not isinstance(ours["optimizer"], torch.optim.AdamW)
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-3)
    assert ours["losses"][-1] < 0.5 * ours["losses"][0]
    assert ours["scheduler"].get_last_lr() == pytest.approx(theirs["scheduler"].get_last_lr())
    assert ours["optimizer"].calls.grads == 100

"""The journal of a race."""

from __future__ import annotations

from pathlib import Path

import example_results as example
import pytest

from anyorder.compare.plan.plan import PlanError
from anyorder.compare.racing.journal import Journal
from anyorder.compare.store.schema import Outcome
from anyorder.compare.store.storage import StorageError

PLAN = {"problem": "p", "seed": 0}


def outcome() -> Outcome:
    return Outcome({"lr": 0.1}, {"lr": 0.1}, example.run(0, []), "m")


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    first = Journal(tmp_path / "j", PLAN)
    assert first.outcome("run/0") is None
    assert first.decided("stage/0", lambda: {"length": 3, "pair": (1, None)}) == {
        "length": 3, "pair": [1, None],
    }  # fmt: skip
    first.finish("run/0", outcome(), 12.5)
    again = Journal(tmp_path / "j", PLAN)
    assert again.outcome("run/0") == outcome()
    assert again.elapsed == 12.5
    assert again.decided("stage/0", lambda: pytest.fail("decided twice"))["length"] == 3
    assert again.decided("none", lambda: None) is None


def test_a_line_that_was_cut_off_is_as_if_never_written(tmp_path: Path) -> None:
    path = tmp_path / "j"
    first = Journal(path, PLAN)
    first.finish("run/0", outcome(), 1.0)
    first.finish("run/1", outcome(), 2.0)
    whole = path.read_text()
    path.write_text(whole[:-20])
    again = Journal(path, PLAN)
    assert again.outcome("run/0") == outcome()
    assert again.outcome("run/1") is None
    again.finish("run/1", outcome(), 2.0)
    assert path.read_text() == whole


def test_another_race_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path / "j", PLAN)
    with pytest.raises(PlanError, match=r"another race \(it differs in seed\)"):
        Journal(tmp_path / "j", {**PLAN, "seed": 1})


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Choose another folder"):
        Journal(tmp_path, PLAN)

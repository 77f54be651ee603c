"""Files appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from anyorder.files import replaced, write_whole


def test_replaced_is_all_or_nothing(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "result.json"
    write_whole(target, "old\n")
    with pytest.raises(RuntimeError), replaced(target) as path:
        path.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old\n"
    with replaced(target) as path:
        path.write_text("new")
    assert target.read_text() == "new"
    assert [p.name for p in target.parent.iterdir()] == ["result.json"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: Any) -> None:
    write_whole(tmp_path / "file", "old")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from anyorder_studies.study import StudyError
from anyorder_studies.wang2025zo2 import memory
from anyorder_studies.wang2025zo2.memory import footprint


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_files_keep_most_weights_out_of_the_memory() -> None:
    found = {method: footprint(method, 256, 12, 0) for method in ("mezo", "zo2")}
    weights = found["mezo"]["weights"]
    assert weights == found["zo2"]["weights"]
    assert weights == 4 * (12 * (12 * 256**2 + 13 * 256) + (256 + 64 + 2) * 256)
    assert found["mezo"]["process"] > weights
    assert found["zo2"]["process"] < 0.7 * weights


@pytest.mark.slow
def test_failures_of_the_process_are_told() -> None:
    with pytest.raises(StudyError, match="measuring the memory of mezo failed"):
        footprint("mezo", -1, 1, 0)


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    with pytest.raises(StudyError, match="only Linux"):
        footprint("mezo", 32, 1, 0)

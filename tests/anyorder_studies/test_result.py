from __future__ import annotations

import json
from pathlib import Path

import pytest

from anyorder_studies.discovery import discover
from anyorder_studies.harness import run_study
from anyorder_studies.result import StudyResult, load_result
from anyorder_studies.study import StudyError


def test_a_result_comes_back_as_it_was(toy_package: str, tmp_path: Path) -> None:
    result = run_study(discover(toy_package).get("doe2020toy")(), "smoke", tmp_path)
    text = json.dumps(result.to_json())
    assert StudyResult.from_json(json.loads(text)).to_json() == result.to_json()
    assert str(tmp_path) not in text


def test_another_format_is_refused() -> None:
    with pytest.raises(StudyError, match="format 2, got 0"):
        StudyResult.from_json({"format": 0})


def test_no_result_is_none(tmp_path: Path) -> None:
    assert load_result(tmp_path) is None

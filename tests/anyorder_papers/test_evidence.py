"""Modules and stored results are looked up as files, without importing anything."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyorder_papers import evidence
from anyorder_papers.errors import PapersError
from anyorder_papers.evidence import (
    module_exists,
    read_result,
    results,
    study_exists,
    verdicts,
)

RESULT = {"key": "doe2020x", "paper": 7, "verdict": "refuted", "seconds": 1.5, "scale": "small"}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Results are read once in a process; here each test has its own."""
    results.cache_clear()
    yield
    results.cache_clear()


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of studies of our own in place of the real one."""
    package = tmp_path / "fake_studies"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(evidence, "STUDIES", "fake_studies")
    return package


def stored(package: Path, key: str, content: object) -> Path:
    folder = package / key
    folder.mkdir()
    (folder / "study.py").touch()
    path = folder / "result.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_modules_that_exist_and_that_do_not() -> None:
    assert module_exists("anyorder_papers")
    assert module_exists("anyorder_papers.listing")
    assert module_exists("xml.etree.ElementTree")
    for name in ("anyorder_papers.nothing", "no_such_package", "anyorder papers", "a..b", "", "."):
        assert not module_exists(name), name


def test_looking_up_a_module_does_not_import_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "explosive"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    (package / "part.py").touch()
    (package / "folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert module_exists("explosive.part")
    assert not module_exists("explosive.folder"), "a folder without __init__.py is no module"
    assert "explosive" not in sys.modules


def test_results_and_verdicts(studies: Path) -> None:
    stored(studies, "doe2020x", RESULT)
    (studies / "roe2021y").mkdir()
    (studies / "roe2021y" / "study.py").touch()
    assert verdicts() == {"doe2020x": "refuted"}
    found = results()["doe2020x"]
    assert (found.paper, found.seconds, found.scale) == (7, 1.5, "small")
    assert study_exists("roe2021y")
    assert not study_exists("nobody2000z")


@pytest.mark.parametrize("content", [{}, [], {"verdict": 3}, {"verdict": "x", "paper": "seven"}])
def test_a_damaged_result_is_named_and_hides_no_other(
    studies: Path, content: object, caplog: pytest.LogCaptureFixture
) -> None:
    path = stored(studies, "bad2020x", content)
    stored(studies, "doe2020x", RESULT)
    with pytest.raises(PapersError, match="bad2020x"):
        read_result(path)
    with caplog.at_level(logging.WARNING, logger="anyorder_papers"):
        assert verdicts() == {"doe2020x": "refuted"}
    assert "bad2020x" in caplog.text


def test_without_studies_there_are_no_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "STUDIES", "no_such_studies")
    assert verdicts() == {}
    assert not study_exists("doe2020x")

from __future__ import annotations

from pathlib import Path

from anyorder_studies.discovery import discover
from anyorder_studies.gallery import gallery, write_gallery
from anyorder_studies.harness import run_study


def test_only_studies_with_a_result_are_entries(toy_package: str) -> None:
    assert gallery(toy_package) == []
    studies = discover(toy_package)
    run_study(studies.get("doe2020toy")(), "smoke", studies.folders["doe2020toy"])
    (entry,) = gallery(toy_package)
    assert entry.key == "doe2020toy"
    assert entry.paper == 7
    assert entry.verdict == "reproduced"
    assert entry.figure.is_file()
    assert entry.claim == "It gains & wins."
    assert entry.claimed == "2 times (effect: > 1)"
    assert entry.measured.startswith("2.005 [")
    assert entry.command == "anyorder study run doe2020toy --scale smoke"
    assert entry.scale == "smoke"
    assert entry.seconds >= 0


def test_the_page_holds_all_figures(toy_package: str, tmp_path: Path) -> None:
    studies = discover(toy_package)
    run_study(studies.get("doe2020toy")(), "smoke", studies.folders["doe2020toy"])
    path = write_gallery(tmp_path / "site", gallery(toy_package))
    assert path.read_text().count("<svg") == 1
    assert [p.name for p in (tmp_path / "site").iterdir()] == ["index.html"]

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from anyorder_studies.discovery import discover
from anyorder_studies.drawing import INK, draw, follow_scheme
from anyorder_studies.harness import run_units


def test_the_same_results_give_the_same_bytes(toy_package: str, tmp_path: Path) -> None:
    study = discover(toy_package).get("doe2020toy")()
    results, _ = run_units(study, "smoke", tmp_path)
    for name in ("one.svg", "two.svg"):
        draw(study, results, study.measure(results), tmp_path / name)
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "two.svg").read_text()
    assert "date" not in text.lower()
    assert "Matplotlib v" not in text
    ElementTree.fromstring(text)


def test_ink_follows_the_reader(toy_package: str, tmp_path: Path) -> None:
    study = discover(toy_package).get("doe2020toy")()
    results, _ = run_units(study, "smoke", tmp_path)
    draw(study, results, study.measure(results), tmp_path / "figure.svg")
    text = (tmp_path / "figure.svg").read_text()
    style, drawing = text.split("</style>", 1)
    assert "prefers-color-scheme:dark" in style
    assert INK not in drawing
    assert "currentColor" in drawing


def test_only_the_drawing_remains() -> None:
    inside = f'<metadata>who, when</metadata><g style="fill: {INK}"/>'
    svg = f'<?xml?><!DOCTYPE x><svg a="1">{inside}</svg>'
    clean = follow_scheme(svg)
    assert clean.startswith('<svg a="1">')
    assert "when" not in clean
    assert '<g style="fill: currentColor"/></svg>' in clean


def test_finding_studies_does_not_load_matplotlib() -> None:
    program = (
        "import sys; from anyorder_studies.cli import app; "
        "assert 'matplotlib' not in sys.modules, 'loaded'"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": _src()})


def _src() -> str:
    import anyorder_studies

    return str(Path(anyorder_studies.__file__).parents[1])

from __future__ import annotations

from pathlib import Path

import pytest

from anyorder_studies.checkpoint import Checkpoint, canonical
from anyorder_studies.study import StudyError


def test_results_survive_reopening(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "units.jsonl"
    first = Checkpoint(path, {"scale": "smoke"})
    first.add({"b": 1, "a": 2}, {"loss": 0.1}, 0.5)
    again = Checkpoint(path, {"scale": "smoke"})
    assert again.done == first.done == {'{"a":2,"b":1}': ({"loss": 0.1}, 0.5)}


def test_another_header_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "units.jsonl"
    Checkpoint(path, {"code": "one"}).add({"seed": 0}, {"loss": 0.1}, 0.5)
    assert Checkpoint(path, {"code": "two"}).done == {}
    assert Checkpoint(path, {"code": "one"}).done == {}


def test_fresh_forgets(tmp_path: Path) -> None:
    path = tmp_path / "units.jsonl"
    Checkpoint(path, {}).add({"seed": 0}, {"loss": 0.1}, 0.5)
    assert Checkpoint(path, {}, fresh=True).done == {}


@pytest.mark.parametrize("kept", range(1, 60, 7))
def test_a_line_cut_off_anywhere_is_dropped(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "units.jsonl"
    checkpoint = Checkpoint(path, {"scale": "smoke"})
    checkpoint.add({"seed": 0}, {"loss": 0.1}, 0.5)
    whole = path.read_bytes()
    checkpoint.add({"seed": 1}, {"loss": 0.2}, 0.5)
    path.write_bytes(path.read_bytes()[: len(whole) + kept])
    again = Checkpoint(path, {"scale": "smoke"})
    assert list(again.done) in (['{"seed":0}'], ['{"seed":0}', '{"seed":1}'])
    assert len(again.done) == 1 or path.read_bytes().endswith(b"\n")
    again.add({"seed": 2}, {"loss": 0.3}, 0.5)
    assert '{"seed":2}' in Checkpoint(path, {"scale": "smoke"}).done


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "units.jsonl"
    Checkpoint(path, {})
    path.write_text("{}\nnot json\n")
    with pytest.raises(StudyError, match="remove the file or pass --fresh"):
        Checkpoint(path, {})
    assert Checkpoint(path, {}, fresh=True).done == {}


def test_only_json_values_make_a_unit() -> None:
    with pytest.raises(StudyError, match="JSON values only"):
        canonical({"seed": object()})

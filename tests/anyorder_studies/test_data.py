from __future__ import annotations

from pathlib import Path

import pytest

from anyorder_studies.data import MissingDataError, data_folder, data_hash, files_hash, missing_data


def test_the_variable_to_set_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ANYORDER_DATA", raising=False)
    with pytest.raises(
        MissingDataError, match="set ANYORDER_DATA to the folder that contains mails/"
    ):
        data_folder("mails")
    monkeypatch.setenv("ANYORDER_DATA", str(tmp_path))
    with pytest.raises(MissingDataError, match="without mails/"):
        data_folder("mails")
    reason = missing_data(["mails"])
    assert reason is not None
    assert str(tmp_path) not in reason
    (tmp_path / "mails").mkdir()
    assert data_folder("mails") == tmp_path / "mails"
    assert missing_data(["mails"]) is None


def test_the_hash_follows_names_and_contents(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANYORDER_DATA", str(tmp_path))
    assert data_hash([]) is None
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_bytes(b"1\n2\n")
    first = data_hash(["a"])
    (tmp_path / "a" / "x.txt").write_bytes(b"1\r\n2\r\n")
    assert data_hash(["a"]) == first
    (tmp_path / "a" / "x.txt").write_bytes(b"1\n3\n")
    assert data_hash(["a"]) != first


def test_files_do_not_run_into_each_other(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"ab")
    two.write_bytes(b"c")
    first = files_hash([("one", one), ("two", two)])
    one.write_bytes(b"a")
    two.write_bytes(b"bc")
    assert files_hash([("one", one), ("two", two)]) != first

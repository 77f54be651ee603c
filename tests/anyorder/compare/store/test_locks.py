"""Only one at a time in a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from anyorder.compare.store.locks import locked
from anyorder.compare.store.storage import StorageError


def test_one_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    with locked(out, "race"):
        said = r"another race runs in .*folder\. Wait"
        with pytest.raises(StorageError, match=said), locked(out, "race"):
            pass
        with locked(out, "suite"), locked(tmp_path, "race"):
            pass  # something else, and somewhere else
    with locked(out, "race"):
        pass


def test_the_lock_ends_with_a_failure(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), locked(tmp_path, "race"):
        raise RuntimeError
    with locked(tmp_path, "race"):
        pass


def test_the_lock_of_a_killed_process_ends(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys\nfrom anyorder.compare.store.locks import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), 'race'):\n"
        "    print('locked', flush=True)\n    sys.stdin.read()\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(StorageError, match="another race"), locked(tmp_path, "race"):
            pass
        other.kill()
        other.wait()
    with locked(tmp_path, "race"):
        pass


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write into"), locked(tmp_path / "file", "race"):
        pass

"""A missing library is one line with the remedy."""

from __future__ import annotations

import sys

import pytest

from anyorder.extras import MissingExtraError, require


def test_returns_the_module() -> None:
    assert require("json").dumps([1]) == "[1]"


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"optuna .*pip install 'anyorder\[compare\]'") as e:
        require("optuna")
    assert isinstance(e.value, ImportError)
    assert "\n" not in str(e.value)


def test_another_extra_can_be_named() -> None:
    with pytest.raises(MissingExtraError, match=r"'anyorder\[postgres\]'"):
        require("no_such_module_at_all", extra="postgres")

"""How commands end."""

from __future__ import annotations

import pytest
import typer

from anyorder.command import exits
from anyorder.command.exits import UsageError, clean_errors, named_values, show_tracebacks
from anyorder.compare.store.storage import StorageError
from anyorder.problems import ProblemError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("[no] markup"), exits.USAGE),
        (ProblemError("x"), exits.PROBLEM),
        (StorageError("x"), exits.STORAGE),
        (ZeroDivisionError("x"), exits.INTERNAL),
        (typer.Exit(7), 7),
    ],
)
def test_an_error_has_its_exit_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, clean_errors():
        raise error
    assert caught.value.exit_code == code
    said = capsys.readouterr().err
    assert ("[no] markup" in said) == isinstance(error, UsageError)


def test_tracebacks_can_be_asked_for() -> None:
    show_tracebacks(True)
    try:
        with pytest.raises(UsageError), clean_errors():
            raise UsageError("x")
    finally:
        show_tracebacks(False)


def test_values_are_literals_where_they_are_ones() -> None:
    assert named_values(["a=3", "b=x=y", "c=(1, 2)"]) == {"a": 3, "b": "x=y", "c": (1, 2)}
    with pytest.raises(UsageError, match="expected NAME=VALUE"):
        named_values(["a"])

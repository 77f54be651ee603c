"""The request for a race."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from anyorder.command.race import app
from anyorder.compare.plan.plan import PlanError
from anyorder.compare.plan.settings import SettingsError
from anyorder.compare.racing.request import RaceRequest, bytes_in, unit_of


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 8 * 2**30), ("500MB", 5 * 10**8), ("1.5 k", 1500), ("100", 100), ("7B", 7)],
)
def test_sizes(text: str, size: int) -> None:
    assert bytes_in(text) == size


@pytest.mark.parametrize("text", ["", "8 apples", "-1MB", "iB"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(PlanError, match="expected a size such as 8GiB"):
        bytes_in(text)


def test_budgets_have_one_unit() -> None:
    assert unit_of("2m") == ("seconds", 120.0)
    assert unit_of("100grads") == ("forwards", 300.0)
    assert unit_of("100steps") == ("steps", 100.0)
    with pytest.raises(PlanError, match="one budget"):
        unit_of("10s,100steps")


def test_the_command_is_the_request() -> None:
    request = RaceRequest(
        "digits", Path("o"), "100grads", ("sgd",), {"batch_size": 8}, ("sgd.momentum=0.9",),
        memory=1000, seed=3, threads=1, timeout="5m",
    )  # fmt: skip
    words = shlex.split(request.command)
    assert words[:3] == ["anyorder", "race", "digits"]
    import typer.main

    context = typer.main.get_command(app).make_context("race", words[2:])
    assert context.params["memory"] == "1000B"
    assert context.params["option"] == ["batch_size=8"]
    assert context.params["set_"] == ["sgd.momentum=0.9"]
    assert (context.params["seed"], context.params["timeout"]) == (3, "5m")
    assert context.params["out"] == Path("o")


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(SettingsError, match="timeout"):
        _ = RaceRequest("digits", Path("o"), timeout="5 apples").settings

"""The request for a race."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from anyorder.command.race import app
from anyorder.compare.plan.plan import PlanError
from anyorder.compare.plan.settings import SettingsError
from anyorder.compare.racing.request import RaceRequest, unit_of


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
    assert context.params["memory"] == request.settings.memory == "1000B"
    assert context.params["option"] == ["batch_size=8"]
    assert context.params["set_"] == ["sgd.momentum=0.9"]
    assert (context.params["seed"], context.params["timeout"]) == (3, "5m")
    assert context.params["out"] == Path("o")


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(SettingsError, match="timeout"):
        _ = RaceRequest("digits", Path("o"), timeout="5 apples").settings

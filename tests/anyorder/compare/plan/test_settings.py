"""Settings: checked when they are made, in words."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from anyorder.compare.plan.settings import Settings, SettingsError


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tune": -1}, "tune: expected at least 0, got -1"),
        ({"seeds": 0}, "seeds: expected at least 1"),
        ({"jobs": 0}, "jobs: expected at least 1"),
        ({"threads": 0}, "threads: expected at least 1"),
        ({"tune": 1.5}, "tune: expected a whole number, got 1.5"),
        ({"schedule": "linear"}, "schedule: expected 'constant' or 'cosine', got 'linear'"),
        ({"rates": "guessed"}, "rates: expected 'nominal' or 'measured'"),
        ({"sampler": "grid"}, "sampler: expected 'qmc', 'random' or 'tpe', got 'grid'"),
        ({"autocast": "int8"}, "autocast: expected 'none'"),
        ({"budget": "3 parsecs"}, "budget: cannot read the budget '3 parsecs'"),
        ({"budget": "9rankings"}, "rankings have no fixed price"),
        ({"tune": -1, "seeds": 0}, "tune: .*; seeds: expected at least 1"),
        ({"tunings": 0}, "tunings: expected at least 1"),
        ({"tunings": 51}, "tunings: expected at most 50, got 51"),
        ({"seeds": 1001}, "seeds: expected at most 1000, got 1001"),
        ({"timeout": "soon"}, "timeout: cannot read"),
        ({"timeout": "10grads"}, "timeout: expected a duration such as 90s, 10m or 2h"),
        ({"colour": 3}, "colour is unknown"),
    ],
)
def test_wrong_numbers_and_words(change: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        Settings("digits", **change)
    if "colour" not in change:
        with pytest.raises(SettingsError, match=says):
            replace(Settings("digits"), **change)


def test_a_setting_cannot_be_changed_behind_the_plans_back() -> None:
    with pytest.raises(AttributeError):
        Settings("digits").tune = 3  # type: ignore[misc]


def test_options_are_what_they_will_be_after_storage() -> None:
    settings = Settings("digits", {"sizes": (1, 2), "where": Path("x")})
    assert settings.options == {"sizes": [1, 2], "where": "x"}
    assert json.loads(json.dumps(asdict(settings))) == asdict(settings)

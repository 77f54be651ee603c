"""Recipes name options that their methods have."""

from __future__ import annotations

import pytest

from anyorder import methods
from anyorder.finetune.model import TUNED
from anyorder.finetune.recipes import RECIPES, recipe


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_fit_their_methods(name: str) -> None:
    assert set(RECIPES[name]) <= set(TUNED)
    hypers = methods.get(name).hypers
    for options in RECIPES[name].values():
        for option, value in options.items():
            hypers[option].check(option, value)


def test_others_have_their_own_defaults() -> None:
    assert recipe("sgd", "full") == {}

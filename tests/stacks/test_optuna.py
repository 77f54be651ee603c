"""A study of the user's own: our budgets, search spaces and ledgers in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def test_the_example(example: Callable[..., dict[str, Any]]) -> None:
    optuna = pytest.importorskip("optuna")
    level = optuna.logging.get_verbosity()
    try:
        study = example("optuna_study")["study"]
    finally:
        optuna.logging.set_verbosity(level)
    done = [t for t in study.trials if t.state is optuna.trial.TrialState.COMPLETE]
    assert len(study.trials) == 8 and done
    assert {t.user_attrs["calls"]["grads"] for t in done} == {100}
    assert {"lr", "weight_decay"} < set(study.best_params)
    assert study.best_value < 0.7 < 2.3

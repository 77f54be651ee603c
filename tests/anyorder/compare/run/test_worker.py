"""Jobs of a worker, asked in this process; what needs one of its own is in test_pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from anyorder.compare.plan.settings import Settings
from anyorder.compare.run.records import Described
from anyorder.compare.run.worker import JOBS, problem_of


def test_describe_says_what_the_problem_says() -> None:
    found = JOBS["describe"](Settings("digits", {"batch_size": 8}), print)
    assert found == Described(
        name="digits",
        spec="digits",
        options={"batch_size": 8},
        metric="accuracy",
        goal="max",
        target=0.95,
        optimum=None,
        schedule="cosine",
        parameters=64 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10,
    )


def test_a_problem_is_loaded_once() -> None:
    settings = Settings("quadratic", {"dim": 4})
    assert problem_of(settings) is problem_of(Settings("quadratic", {"dim": 4}, seeds=9))
    assert problem_of(Settings("quadratic", {"dim": 5})) is not problem_of(settings)


def test_options_may_be_any_json(problem_file: Callable[[str], str]) -> None:
    path = problem_file("def __init__(self, *, hidden=()):\n    self.hidden = hidden")
    options = {"hidden": [3, {"b": None, "a": [0.5]}]}
    problem: Any = problem_of(Settings(path, options))
    assert problem.hidden == options["hidden"]
    assert problem_of(Settings(path, {"hidden": [3, {"a": [0.5], "b": None}]})) is problem
    assert JOBS["describe"](Settings(path, options), print).options == options

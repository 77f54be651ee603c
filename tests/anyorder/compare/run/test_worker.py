"""Jobs of a worker, asked in this process; what needs one of its own is in test_pool."""

from __future__ import annotations

import json
from typing import Any

from anyorder.compare.run.worker import JOBS, failure, problem_of
from anyorder.compare.store import schema


def test_describe_says_what_the_problem_says() -> None:
    found = JOBS["describe"]({"problem": "digits", "options": {"batch_size": 8}}, print)
    assert found == {
        "name": "digits",
        "spec": "digits",
        "options": {"batch_size": 8},
        "metric": "accuracy",
        "goal": "max",
        "target": 0.95,
        "optimum": None,
        "schedule": "cosine",
    }


def test_a_problem_is_loaded_once() -> None:
    message: dict[str, Any] = {"problem": "quadratic", "options": {"dim": 4}}
    assert problem_of(message) is problem_of(dict(message))
    assert problem_of({**message, "options": {"dim": 5}}) is not problem_of(message)


def test_a_failure_is_a_valid_record() -> None:
    record = failure({"seed": 3, "config": {"lr": 0.1}}, "crashed", "the process died")
    schema._check("run", json.loads(json.dumps(record)), schema.RunRecord)
    assert (record["status"], record["stop_reason"], record["seed"]) == ("failed", "crashed", 3)

"""The schema of ``results.json``, for reports and scripts.

The classes here and in :mod:`anyorder.compare.run.records` are the schema: :func:`read` validates a
text once and returns typed objects. ``docs/results.md`` documents each field.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from anyorder.compare.plan.checked import STRICT, in_words
from anyorder.compare.plan.plan import Plan
from anyorder.compare.plan.space import Dimension
from anyorder.compare.run.environment import Environment
from anyorder.compare.run.records import Described, Pilot, RunRecord, Status
from anyorder.errors import AnyOrderError

#: Incremented with every incompatible change of the format.
SCHEMA = 3

T = TypeVar("T")


class ResultsError(AnyOrderError, ValueError):
    """A results file that is damaged or was written by another version."""


# The outermost class sets the strictness for all nested ones.

# --- While a comparison runs -------------------------------------------------------------------


@dataclass
class Facts:
    """Results of the pilot, stored for all processes that join."""

    __pydantic_config__ = STRICT

    problem: Described
    pilot: Pilot
    environment: Environment


@dataclass
class Outcome:
    """The outcome of one run.

    Attributes:
        config: values of the tuned hyper-parameters.
        settings: every hyper-parameter.
        record: the measurements; None if the run was skipped because the default was chosen.
        machine: the machine that executed it.
    """

    __pydantic_config__ = STRICT

    config: dict[str, Any]
    settings: dict[str, Any]
    record: RunRecord | None
    machine: str


# --- Results -----------------------------------------------------------------------------------


@dataclass
class ProblemRecord(Described):
    """The problem and its evaluation."""

    source: str


@dataclass
class TrialCost:
    """The cost of a tuning run."""

    seconds: float
    forwards: float
    steps: int


@dataclass
class Trial:
    """One tuning run, without its curve."""

    index: int
    config: dict[str, Any]
    seed: int
    value: float | None
    loss: float | None
    cost: TrialCost
    status: Status
    error: str | None


@dataclass
class TuningRecord:
    """One independent search for a configuration.

    Attributes:
        index: number of the tuning.
        trials: its trials, in order; empty where there is nothing to choose between.
        chosen: index of the trial whose configuration is reported.
        settings: every hyper-parameter of the chosen configuration.
        space: what was searched, with the ends that were reached.
    """

    index: int
    trials: list[Trial]
    chosen: int
    settings: dict[str, Any]
    space: list[Dimension]


@dataclass
class MethodRecord:
    """One entrant: its class, tunings and runs.

    Attributes:
        tunings: its independent tunings; empty if it could not take part.
        runs: reported runs of all tunings.
        default_runs: reported runs of the default configuration.
        twin_of: name of the method it is a second copy of; else None.
        failed: why there is no result; else None.
    """

    name: str
    spec: str
    class_name: str
    version: str
    order: int | str
    needs: list[str]
    tunings: list[TuningRecord]
    runs: list[RunRecord]
    default_runs: list[RunRecord]
    twin_of: str | None
    failed: str | None


@dataclass
class Rates:
    """Price of each answer in forward passes."""

    used: Literal["nominal", "measured"]
    nominal: dict[str, float]
    measured: dict[str, float | None]


@dataclass
class Results:
    """A whole comparison."""

    __pydantic_config__ = STRICT

    schema: int
    created_by: str
    created: str
    command: str
    plan: Plan
    fingerprint: str
    problem: ProblemRecord
    environment: Environment
    pilot: Pilot
    rates: Rates
    budget: dict[str, float]
    baseline: str
    methods: list[MethodRecord]
    warnings: list[str]


# --- In and out --------------------------------------------------------------------------------


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)


def read(kind: type[T], text: str, name: str) -> T:
    """Parse and validate a text as ``kind``.

    Args:
        kind: a class of this module, or the plan.
        text: JSON.
        name: name of the text in errors.

    Raises:
        ResultsError: the text is invalid; the message names the field and what was expected.
    """
    try:
        return _adapter(kind).validate_json(text)
    except ValidationError as error:
        raise ResultsError(in_words(error, name)) from None


def text_of(record: Any) -> str:
    """A record as JSON on one line."""
    return json.dumps(asdict(record), allow_nan=False)


def results_from(text: str) -> Results:
    """Parse results.

    Raises:
        ResultsError: the text is damaged, or was written by another version.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ResultsError(f"expected an object with comparison results, got {text[:40]!r}")
    found: dict[str, Any] = content
    if found.get("schema") != SCHEMA:
        raise ResultsError(
            f"these results have schema {found.get('schema')!r} and this version reads schema "
            f"{SCHEMA}; they were written by anyorder {found.get('created_by', '(unknown)')}. Read "
            "them with that version, or run the comparison again into another folder"
        )
    return read(Results, text, "results")

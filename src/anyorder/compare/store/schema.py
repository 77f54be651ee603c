"""The form of ``results.json``: what a comparison hands to its report, to scripts and to readers.

The types below are the schema; :func:`validate` holds a file against them, and
``docs/results.md`` says in words what each field means. A number that is not finite is stored as
``null``, because JSON has no other way to say it.
"""

from __future__ import annotations

import types
from typing import (
    Any,
    Literal,
    TypedDict,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from anyorder.errors import AnyOrderError

#: Goes up whenever a reader of the old form would misread the new one.
SCHEMA = 1


class ResultsError(AnyOrderError, ValueError):
    """A results file that is damaged or was written by another version."""


class Costs(TypedDict):
    """Answers taken so far, by kind."""

    values: int
    grads: int
    products: int
    rankings: int
    ranked: int
    output_grads: int
    skipped: int
    bytes_sent: int


class Point(TypedDict):
    """One evaluation of a run: the cost so far and how good the model was."""

    fraction: float
    seconds: float
    forwards: float
    calls: Costs
    steps: int
    train_loss: float | None
    val_loss: float | None
    metric: float | None
    oracle_seconds: float
    optimizer_seconds: float
    data_seconds: float
    peak_bytes: int


class Final(TypedDict):
    """Validation numbers at the end of a run; ``null`` after a divergence."""

    loss: float | None
    metric: float | None


class RunRecord(TypedDict):
    """One training run with one configuration and one seed."""

    seed: int
    config: dict[str, Any]
    start_hash: str
    status: Literal["done", "diverged", "failed"]
    stop_reason: Literal["budget", "diverged", "error", "crashed"]
    error: str | None
    traceback: str | None
    curve: list[Point]
    final: Final
    test: dict[str, float | None] | None
    peak_bytes: int
    base_bytes: int
    state_bytes: int
    warmup_seconds: float
    evaluation_seconds: float


class Trial(TypedDict):
    """One tuning run, without its curve."""

    index: int
    config: dict[str, Any]
    seed: int
    value: float | None
    loss: float | None
    cost: dict[str, float]
    status: Literal["done", "diverged", "failed"]
    error: str | None


class Dimension(TypedDict):
    """One searched hyper-parameter."""

    name: str
    kind: Literal["log", "linear", "choice"]
    low: float | None
    high: float | None
    choices: list[Any] | None
    whole: bool
    assumed: bool


_WithClass = TypedDict("_WithClass", {"class": str})  # "class" is no name in a class body


class MethodRecord(_WithClass):
    """One entrant: what it is, how it was tuned, and its runs."""

    name: str
    spec: str
    version: str
    order: int | str
    needs: list[str]
    settings: dict[str, Any]
    chosen: int
    space: list[Dimension]
    tuning: list[Trial]
    runs: list[RunRecord]
    default_runs: list[RunRecord]
    failed: str | None


class ProblemRecord(TypedDict):
    """What was minimised and how it was judged."""

    name: str
    spec: str
    options: dict[str, Any]
    metric: str
    goal: Literal["min", "max"]
    target: float | None
    optimum: float | None
    parameters: int
    source: str


class Rates(TypedDict):
    """Price of each answer in forward passes."""

    used: Literal["nominal", "measured"]
    nominal: dict[str, float]
    measured: dict[str, float | None]


class Results(TypedDict):
    """A whole comparison."""

    schema: int
    created_by: str
    created: str
    command: str
    plan: dict[str, Any]
    problem: ProblemRecord
    environment: dict[str, Any]
    probe: dict[str, Any]
    rates: Rates
    budget: dict[str, float]
    methods: list[MethodRecord]
    warnings: list[str]


def validate(results: Any) -> Results:
    """Return ``results`` if it has the form of :class:`Results`.

    Raises:
        ResultsError: names the place, what was expected there and what was found; or says that
            another version wrote it.
    """
    if not isinstance(results, dict):
        raise ResultsError(f"expected an object with comparison results, got {_kind(results)}")
    found = cast(dict[str, Any], results).get("schema")
    if found != SCHEMA:
        raise ResultsError(
            f"these results have schema {found!r} and this version reads schema {SCHEMA}; they "
            f"were written by anyorder {results.get('created_by', '(unknown)')}. Read them with "
            "that version, or run the comparison again into another folder"
        )
    _check("results", results, Results)
    return cast(Results, results)


def _check(place: str, value: Any, kind: Any) -> None:
    """Raise :class:`ResultsError` unless ``value`` is of type ``kind``."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return
    if is_typeddict(kind):
        _check_fields(place, value, kind)
    elif origin is list:
        _expect(place, value, list, "a list")
        for index, part in enumerate(value):
            _check(f"{place}[{index}]", part, arguments[0])
    elif origin is dict:
        _expect(place, value, dict, "an object")
        for name, part in value.items():
            _check(f"{place}.{name}", part, arguments[1])
    elif origin is Literal:
        if value not in arguments:
            words = ", ".join(map(repr, arguments))
            raise ResultsError(f"{place}: expected one of {words}, got {value!r}")
    elif origin in (Union, types.UnionType):
        if value is None and types.NoneType in arguments:
            return
        rest = [a for a in arguments if a is not types.NoneType]
        if len(rest) == 1:
            _check(place, value, rest[0])
        elif not isinstance(value, tuple(rest)):
            raise ResultsError(f"{place}: expected {kind}, got {_kind(value)}")
    elif kind is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ResultsError(f"{place}: expected a number, got {_kind(value)}")
    elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ResultsError(f"{place}: expected {kind.__name__}, got {_kind(value)}")


def _check_fields(place: str, value: Any, kind: Any) -> None:
    _expect(place, value, dict, "an object")
    fields = get_type_hints(kind)
    missing = [name for name in fields if name not in value]
    extra = [name for name in value if name not in fields]
    if missing or extra:
        says = [f"lacks {', '.join(missing)}"] if missing else []
        says += [f"has unknown {', '.join(extra)}"] if extra else []
        raise ResultsError(f"{place} {' and '.join(says)}")
    for name, expected in fields.items():
        _check(f"{place}.{name}", value[name], expected)


def _expect(place: str, value: Any, kind: type, words: str) -> None:
    if not isinstance(value, kind):
        raise ResultsError(f"{place}: expected {words}, got {_kind(value)}")


def _kind(value: Any) -> str:
    return "null" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"

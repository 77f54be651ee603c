"""The form of results: accepted as it is, refused with the place where it is not."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from anyorder.compare.store import schema
from anyorder.compare.store.schema import SCHEMA, ResultsError, validate
from anyorder.oracle.ledger import COUNTS

POINT: dict[str, Any] = {
    "fraction": 0.5,
    "seconds": 1,
    "forwards": 3.0,
    "calls": dict.fromkeys((*COUNTS, "skipped", "bytes_sent"), 0),
    "steps": 1,
    "train_loss": None,
    "val_loss": 2.0,
    "metric": 2.0,
    "oracle_seconds": 0.5,
    "optimizer_seconds": 0.5,
    "data_seconds": 0.0,
    "peak_bytes": 10,
}


def test_a_point_is_accepted() -> None:
    schema._check("point", POINT, schema.Point)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("fraction", "half", "point.fraction: expected a number, got str"),
        ("steps", 1.5, "point.steps: expected int, got float"),
        ("steps", True, "point.steps: expected int"),
        ("seconds", None, "point.seconds: expected a number, got null"),
        ("calls", [], "point.calls: expected an object, got list"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any, says: str) -> None:
    wrong = {**copy.deepcopy(POINT), field: value}
    with pytest.raises(ResultsError, match=re.escape(says)):
        schema._check("point", wrong, schema.Point)


def test_missing_and_unknown_fields_are_named() -> None:
    wrong = {**POINT, "colour": 1}
    del wrong["steps"]
    with pytest.raises(ResultsError, match="point lacks steps and has unknown colour"):
        schema._check("point", wrong, schema.Point)


def test_words_are_checked() -> None:
    with pytest.raises(ResultsError, match=r"status: expected one of 'done', .* got 'fine'"):
        schema._check("status", "fine", get_type_hints(schema.RunRecord)["status"])


def test_results_of_another_version_are_refused() -> None:
    with pytest.raises(ResultsError, match=r"schema 99 .* written by anyorder 3\.0"):
        validate({"schema": SCHEMA + 98, "created_by": "3.0"})


@pytest.mark.parametrize("wrong", [None, [], "text", 3])
def test_what_is_no_object_is_refused(wrong: Any) -> None:
    with pytest.raises(ResultsError, match="expected an object with comparison results"):
        validate(wrong)


def test_every_field_is_documented() -> None:
    page = Path(__file__).parents[3] / "docs" / "results.md"
    words = set(re.findall(r"`([a-z_]+)(?:\[\])?`", page.read_text()))
    kinds = [
        schema.Results,
        schema.ProblemRecord,
        schema.MethodRecord,
        schema.Dimension,
        schema.Trial,
        schema.RunRecord,
        schema.Final,
        schema.Point,
        schema.Costs,
        schema.Rates,
    ]
    fields = {name for kind in kinds for name in get_type_hints(kind)}
    assert fields - words == set()

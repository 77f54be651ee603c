"""The form of results: accepted as it is, refused with the place where it is not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from example_results import as_json, hostile, made_up

from anyorder.compare.plan.space import Dimension
from anyorder.compare.run import records
from anyorder.compare.store import schema
from anyorder.compare.store.schema import SCHEMA, ResultsError, results_from, text_of


@pytest.mark.parametrize("name", list(hostile()))
def test_there_and_back(name: str) -> None:
    results = hostile()[name]
    assert results_from(text_of(results)) == results


def edited(change: Callable[[Any], object]) -> str:
    content = as_json(made_up({"a": [[1.0, 0.5]]}))
    change(content)
    return json.dumps(content)


POINT = "results.methods[0].runs[0].curve[0]"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("fraction", "half", "fraction: expected a number, got 'half'"),
        ("steps", 1.5, "steps: expected a whole number, got 1.5"),
        ("steps", True, "steps: expected a whole number, got True"),
        ("seconds", None, "seconds: expected a number, got null"),
        ("val_loss", float("nan"), "val_loss: expected a finite number, got nan"),
        ("calls", [], "calls: expected an object, got []"),
        ("colour", 1, "colour is unknown"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any, says: str) -> None:
    text = edited(lambda c: c["methods"][0]["runs"][0]["curve"][0].update({field: value}))
    with pytest.raises(ResultsError, match=re.escape(f"{POINT}.{says}")):
        results_from(text)


def test_missing_fields_and_wrong_words_are_named() -> None:
    text = edited(lambda c: c["methods"][0]["runs"][0].update(status="fine"))
    with pytest.raises(ResultsError, match=r"status: expected 'done', .*, got 'fine'"):
        results_from(text)
    with pytest.raises(ResultsError, match="results.methods is missing"):
        results_from(edited(lambda c: c.pop("methods")))
    with pytest.raises(ResultsError, match=r"runs\[0\].error is missing"):
        results_from(edited(lambda c: c["methods"][0]["runs"][0].pop("error")))


def test_results_of_another_version_are_refused() -> None:
    with pytest.raises(ResultsError, match=r"schema 100 .* written by anyorder 3\.0"):
        results_from(json.dumps({"schema": SCHEMA + 97, "created_by": "3.0"}))


@pytest.mark.parametrize("wrong", ["null", "[]", '"text"', "3"])
def test_what_is_no_object_is_refused(wrong: str) -> None:
    with pytest.raises(ResultsError, match="expected an object with comparison results"):
        results_from(wrong)


def test_every_field_is_documented() -> None:
    page = Path(__file__).parents[4] / "docs" / "results.md"
    words = set(re.findall(r"`([a-z_]+)(?:\[\])?`", page.read_text()))
    kinds = [
        schema.Results,
        schema.ProblemRecord,
        schema.MethodRecord,
        schema.TuningRecord,
        Dimension,
        schema.Trial,
        schema.TrialCost,
        schema.Rates,
        schema.Environment,
        records.Pilot,
        records.RunRecord,
        records.Final,
        records.Point,
        records.Costs,
    ]
    names = {each.name for kind in kinds for each in fields(kind)}
    assert names - words == set()

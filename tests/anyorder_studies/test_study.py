from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from anyorder_studies.study import Claim, Study, StudyError

CLAIM = Claim(
    quantity="q", direction="lower", expected=0.5, threshold=1.0, tolerance=0.1, unit="x",
    source="s", text="t",
    central=True,
)  # fmt: skip
GOOD: dict[str, Any] = {
    "key": "doe2020toy",
    "paper": 1,
    "title": "Toy",
    "claims": (CLAIM,),
    "headline": "h",
    "scales": {"smoke": {"seeds": 1}, "small": {}, "full": {"need": "much"}},
    **{name: lambda self, *args: None for name in ("runs", "run", "measure", "figure")},
}


def define(**changes: Any) -> type[Study]:
    body = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    return type("Toy", (Study,), body)


def test_a_complete_declaration_is_accepted() -> None:
    assert define()().settings("smoke") == {"seeds": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"title": None}, "does not declare title"),
        ({"key": "Toy"}, "key like benson2018simplicial"),
        ({"key": "doe20toy"}, "key like"),
        ({"paper": 134}, "1..133"),
        ({"paper": 0}, "1..133"),
        ({"claims": ()}, "at least one claim"),
        ({"claims": (replace(CLAIM, central=False),)}, "one claim with central=True, got none"),
        ({"claims": (CLAIM, replace(CLAIM, quantity="r"))}, "central=True, got q, r"),
        ({"headline": None}, "does not declare headline"),
        ({"scales": {"smoke": {}}}, "scales smoke, small, full"),
        ({"scales": {"smoke": {}, "small": {}, "full": {}}}, "must state what it needs"),
    ],
)
def test_an_incomplete_declaration_says_what_is_missing(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        define(**change)


def test_a_background_work_has_no_number_and_says_so() -> None:
    assert type("Toy", (Study,), {**GOOD, "paper": None})().paper is None
    with pytest.raises(StudyError, match="does not declare paper"):
        define(paper=None)


def test_seeds_override_every_scale_that_has_them() -> None:
    study = define()(seeds=5)
    assert study.settings("smoke") == {"seeds": 5}
    with pytest.raises(StudyError, match="no seeds to choose"):
        study.settings("small")
    with pytest.raises(StudyError, match="at least one seed"):
        define()(seeds=0)


def test_an_unknown_scale_names_the_known_ones() -> None:
    with pytest.raises(StudyError, match="'tiny'; known are smoke, small, full"):
        define()().settings("tiny")

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from anyorder_studies.discovery import discover
from anyorder_studies.harness import run_study
from anyorder_studies.page import claimed, command, interval, number, origin, study_page
from anyorder_studies.study import Claim, Measurement

CLAIM = Claim(
    quantity="q", direction="lower", expected=0.5, threshold=1.0, tolerance=0.1, unit="x",
    source="s", text="t",
)  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.0, "3"), (0.123456, "0.1235"), (1234567.0, "1234567"), (1.5e-7, "1.5e-07"), (0.0, "0")],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_intervals_and_claims_as_text() -> None:
    assert interval(Measurement(2.0, 1.5, 2.5, 3)) == "2 [1.5, 2.5], n = 3"
    assert interval(Measurement(2.0, 2.0, 2.0, 1)) == "2 (exact)"
    assert interval(Measurement(2.0, float("-inf"), 3.0, 1)) == "2 [unknown, 3], n = 1"
    assert claimed(CLAIM) == "0.5 x (effect: < 1)"
    assert claimed(replace(CLAIM, expected=1.0)) == "< 1 x (direction only)"
    equal = replace(CLAIM, direction="equal", threshold=0.5)
    assert claimed(equal) == "= 0.5 +- 0.05 x"


def test_background_works_have_no_number() -> None:
    assert (origin(7), origin(None)) == ("Paper [7]", "Background")


def test_the_page_says_everything_and_is_a_function_of_its_inputs(
    toy_package: str, tmp_path: Path
) -> None:
    study = discover(toy_package).get("doe2020toy")()
    result = run_study(study, "small", tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert page == study_page(study, result) == study_page(study, result)
    for part in (
        "# A toy <study>",
        "**reproduced**",
        "2 times (effect: > 1)",
        "| met | table 1 |",
        "A toy | study.",
        command(result),
        "Seeds: 0 to 3.",
        result.hashes["code"],
        "The abstract leads with: it gains",
    ):
        assert part in page
    assert study_page(study, replace(result, scale="smoke")) != page
    assert "after this result" not in page
    marked = study_page(study, result, "changed after results")
    assert "**reproduced** · **changed after results** ·" in marked
    assert "The claims or the protocol changed after this result was measured." in marked


def test_claims_that_wait_for_a_run_are_listed(toy_package: str, tmp_path: Path) -> None:
    study = discover(toy_package).get("doe2020toy")()
    result = run_study(study, "small", tmp_path)
    type(study).claims = (*study.claims, replace(CLAIM, text="It waits."))
    page = study_page(study, result, "changed after results")
    assert "- It waits. Claimed: 0.5 x (effect: < 1) (s)." in page

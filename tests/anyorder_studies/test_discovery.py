from __future__ import annotations

from collections.abc import Callable

import pytest

from anyorder_studies.discovery import discover
from anyorder_studies.study import StudyError


def test_a_broken_study_is_reported_and_hides_no_other(
    make_package: Callable[..., str], toy: Callable[..., str]
) -> None:
    package = make_package(
        doe2020toy=toy(),
        roe2021crash="raise RuntimeError('no such luck')",
        roe2022syntax="def (",
        roe2023empty="x = 1",
        roe2024name=toy(key="doe2019other"),
        roe2025exit="raise ImportError('torch is missing')",
        doe2026twin=toy(key="doe2026twin") + "\nclass Second(Study):\n    "
        "key='doe2027x'; paper=1; title='t'; claims=Toy.claims; headline='h'\n    "
        "scales=Toy.scales; runs=run=measure=figure=lambda self, *a: None\n",
    )
    found = discover(package)
    assert list(found.classes) == ["doe2020toy"]
    assert found.folders["doe2020toy"].name == "doe2020toy"
    reasons = found.broken
    assert reasons["roe2021crash"] == "RuntimeError: no such luck"
    assert reasons["roe2022syntax"].startswith("SyntaxError")
    assert "found none" in reasons["roe2023empty"]
    assert "expected the key 'roe2024name' of the folder" in reasons["roe2024name"]
    assert reasons["roe2025exit"] == "ImportError: torch is missing"
    assert "found Toy, Second" in reasons["doe2026twin"]


def test_an_unknown_key_names_the_nearest(toy_package: str) -> None:
    studies = discover(toy_package)
    assert studies.get("doe2020toy").title == "A toy <study>"
    with pytest.raises(StudyError, match="did you mean 'doe2020toy'"):
        studies.get("doe2020tyo")


def test_a_broken_key_says_why(make_package: Callable[..., str]) -> None:
    studies = discover(make_package(roe2021crash="1 / 0"))
    with pytest.raises(StudyError, match="cannot be used: ZeroDivisionError"):
        studies.get("roe2021crash")


def test_what_is_no_package_is_refused() -> None:
    with pytest.raises(StudyError, match="importable package"):
        discover("no_such_package_of_studies")
    with pytest.raises(StudyError, match="importable package"):
        discover("json.decoder")

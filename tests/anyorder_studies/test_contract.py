"""What every study in the package has to keep: it runs, quickly, and its page is up to date."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest

from anyorder_studies import harness
from anyorder_studies.data import missing_data
from anyorder_studies.discovery import discover
from anyorder_studies.page import study_page
from anyorder_studies.result import FIGURE, README, load_result
from anyorder_studies.study import Unit, judge, judge_claim

STUDIES = discover()
STORED = [key for key in STUDIES.classes if load_result(STUDIES.folders[key]) is not None]
SMOKE_SECONDS = 20.0


def test_no_study_is_broken() -> None:
    assert STUDIES.broken == {}


def with_fresh_seeds(runs: Callable[[str], Iterable[Unit]], scale: str) -> Iterable[Unit]:
    """The units of a scale, none of them with a seed of the stored run."""
    for unit in runs(scale):
        yield {**unit, "seed": unit["seed"] + 1000} if "seed" in unit else unit


@pytest.mark.parametrize("key", STUDIES.classes)
def test_smoke_scale_runs_quickly_with_any_seeds(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = STUDIES.get(key)()
    reason = missing_data(study.data)
    if reason is not None:
        pytest.skip(reason)
    monkeypatch.setattr(study, "runs", partial(with_fresh_seeds, study.runs))
    # Processor time, so that a busy machine does not fail a fast study.
    start = time.process_time()
    result = harness.run_study(study, "smoke", tmp_path)
    assert time.process_time() - start < SMOKE_SECONDS
    assert result.units == len(list(study.runs("smoke")))


@pytest.mark.parametrize("key", STUDIES.classes)
def test_units_are_deterministic(key: str) -> None:
    study = STUDIES.get(key)()
    reason = missing_data(study.data)
    if reason is not None:
        pytest.skip(reason)
    unit = harness.plan(study, "smoke")[0]
    first, second = study.run(dict(unit)), study.run(dict(unit))
    timing = {name for name in first if "seconds" in name}
    assert {k: v for k, v in first.items() if k not in timing} == {
        k: v for k, v in second.items() if k not in timing
    }


@pytest.mark.parametrize("key", STORED)
def test_the_stored_result_belongs_to_the_code(key: str) -> None:
    result = load_result(STUDIES.folders[key])
    assert result is not None
    assert result.scale == "small"
    assert result.code == harness.code_hash(STUDIES.get(key)), (
        f"the code changed: anyorder study run {key} --store"
    )


@pytest.mark.parametrize("key", STORED)
def test_the_page_and_the_verdict_follow_from_the_result(key: str) -> None:
    study, folder = STUDIES.get(key)(), STUDIES.folders[key]
    result = load_result(folder)
    assert result is not None
    assert result.verdict is judge(study.claims, result.measurements)
    assert result.statuses == tuple(
        judge_claim(claim, result.measurements[claim.quantity]) for claim in study.claims
    )
    assert (folder / README).read_text(encoding="utf-8") == study_page(study, result)
    assert (folder / FIGURE).read_text(encoding="utf-8").startswith("<svg")

"""What every study in the package has to keep: it runs, quickly, and its page is up to date."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from anyorder.compare.plan.seeds import BLOCK
from anyorder_studies import harness
from anyorder_studies.checkpoint import canonical
from anyorder_studies.data import missing_data
from anyorder_studies.discovery import discover
from anyorder_studies.page import study_page
from anyorder_studies.protocol import Change, changes
from anyorder_studies.result import FIGURE, README, StudyResult, load_result
from anyorder_studies.study import Study, Unit, judge, judge_claim

STUDIES = discover()
STORED = [key for key in STUDIES.classes if load_result(STUDIES.folders[key]) is not None]
SMOKE_SECONDS = 20.0


def test_no_study_is_broken() -> None:
    assert STUDIES.broken == {}


def with_fresh_seeds(runs: Callable[[str], Iterable[Unit]], scale: str) -> Iterable[Unit]:
    """The units of a scale, none of them with a seed of the stored run."""
    for unit in runs(scale):
        yield {**unit, "seed": unit["seed"] + BLOCK} if "seed" in unit else unit


@dataclass
class Smoke:
    """A run at the smallest scale: what it found, its folder, the processor time it took."""

    study: Study
    result: StudyResult
    folder: Path
    seconds: float


def smokes() -> Iterator[Any]:
    """Every study with one seed, and with all of the smoke scale where that is more."""
    for key, study in STUDIES.classes.items():
        if study.scales["smoke"].get("seeds", 1) > 1:
            yield pytest.param((key, 1), id=key)
            yield pytest.param((key, None), id=f"{key}-all-seeds", marks=pytest.mark.slow)
        else:
            yield pytest.param((key, None), id=key)


@pytest.fixture(scope="module", params=smokes())
def smoke(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    key, seeds = request.param
    study = STUDIES.get(key)(seeds=seeds)
    reason = missing_data(study.data)
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("smoke")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "runs", partial(with_fresh_seeds, study.runs))
        # Processor time, so that a busy machine does not fail a fast study.
        start = time.process_time()
        result = harness.run_study(study, "smoke", folder)
        return Smoke(study, result, folder, time.process_time() - start)


def slowness() -> float:
    """How many times slower this moment is than a machine that adds 100,000 times in 0.2 s."""
    number = torch.zeros(8)
    start = time.process_time()
    for _ in range(100_000):
        number.add_(1.0)
    return max(1.0, (time.process_time() - start) / 0.2)


def test_smoke_scale_runs_quickly_with_any_seeds(smoke: Smoke) -> None:
    assert smoke.seconds < SMOKE_SECONDS or smoke.seconds < SMOKE_SECONDS * slowness()
    assert smoke.result.units == len(list(smoke.study.runs("smoke")))


def test_units_are_deterministic(smoke: Smoke) -> None:
    first = json.loads((smoke.folder / harness.UNITS).read_text(encoding="utf-8").splitlines()[1])
    again = json.loads(canonical(smoke.study.run(dict(first["unit"]))))
    timing = {name for name in again if "seconds" in name}
    assert {k: v for k, v in first["result"].items() if k not in timing} == {
        k: v for k, v in again.items() if k not in timing
    }


@pytest.mark.parametrize("key", STORED)
def test_the_stored_verdict_is_that_of_the_claims(key: str) -> None:
    study = STUDIES.get(key)()
    result = load_result(STUDIES.folders[key])
    assert result is not None
    assert result.scale == "small"
    if {claim.quantity for claim in study.claims} <= set(result.measurements):
        assert result.claims == study.claims, f"judge again: anyorder study verify {key} --store"
    else:
        assert changes(study, result) is Change.AFTER_RESULTS


@pytest.mark.parametrize("key", STORED)
def test_the_page_and_the_verdict_follow_from_the_result(key: str) -> None:
    study, folder = STUDIES.get(key)(), STUDIES.folders[key]
    result = load_result(folder)
    assert result is not None
    assert result.verdict is judge(result.claims, result.measurements)
    assert result.statuses == tuple(
        judge_claim(claim, result.measurements[claim.quantity]) for claim in result.claims
    )
    page = study_page(study, result, changes(study, result))
    assert (folder / README).read_text(encoding="utf-8") == page
    assert (folder / FIGURE).read_text(encoding="utf-8").startswith("<svg")

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from anyorder_studies.contest import tuning_of, tuning_seeds
from anyorder_studies.discovery import discover
from anyorder_studies.harness import run_study
from anyorder_studies.study import Measurement, StudyError
from anyorder_studies.verify import compare, judge_again, run_again, within


def test_a_run_holds_against_itself(toy_package: str, tmp_path: Path) -> None:
    study = discover(toy_package).get("doe2020toy")
    stored = run_study(study(seeds=3), "small", tmp_path / "a")
    found = run_again(study, stored, tmp_path / "b")
    assert found.repeats and not found.flips
    assert found.again.seeds == stored.seeds == (0, 1, 2)
    assert found.again.measurements == stored.measurements


def test_fresh_seeds_are_new_and_their_tuning_is_too(toy_package: str, tmp_path: Path) -> None:
    study = discover(toy_package).get("doe2020toy")
    stored = run_study(study(seeds=3), "small", tmp_path / "a")
    first = run_again(study, stored, tmp_path / "b", fresh=True).again
    assert first.seeds == (10_000, 10_001, 10_002)
    assert run_again(study, first, tmp_path / "c", fresh=True).again.seeds[0] == 20_000
    assert not set(tuning_seeds(9, tuning_of(first.seeds[0]))) & set(tuning_seeds(9))
    quick = run_again(study, stored, tmp_path / "d", fresh=True, scale="smoke").again
    assert (quick.scale, quick.seeds) == ("smoke", (10_000, 10_001))


def test_verifying_never_trusts_an_old_checkpoint(
    make_package: Callable[..., str], toy: Callable[..., str], tmp_path: Path
) -> None:
    source = toy(run="from pathlib import Path; p = Path(__file__).with_name('count'); "
                 "p.write_text(p.read_text() + '.' if p.exists() else '.')")  # fmt: skip
    studies = discover(make_package(doe2020toy=source))
    study = studies.get("doe2020toy")
    stored = run_study(study(), "small", tmp_path)
    run_again(study, stored, tmp_path)
    assert len((studies.folders["doe2020toy"] / "count").read_text()) == 8


def test_it_runs_with_as_many_threads_as_the_stored_result(
    toy_package: str, tmp_path: Path
) -> None:
    study = discover(toy_package).get("doe2020toy")
    stored = run_study(study(), "small", tmp_path)
    before = torch.get_num_threads()
    other = replace(stored, environment={**stored.environment, "threads": before + 1})
    again = run_again(study, other, tmp_path).again
    assert again.environment["threads"] == before + 1
    assert torch.get_num_threads() == before


def test_a_moved_value_differs(toy_package: str, tmp_path: Path) -> None:
    study = discover(toy_package).get("doe2020toy")
    result = run_study(study(), "small", tmp_path)
    moved = replace(result, measurements={"gain": Measurement(5.0, 4.0, 6.0, 4)})
    found = compare(study(), moved, result)
    assert not found.repeats
    assert found.checks[0].now.value == pytest.approx(2.015)


def test_a_verdict_flips_with_the_stored_measurements(toy_package: str, tmp_path: Path) -> None:
    study = discover(toy_package).get("doe2020toy")
    result = run_study(study(), "small", tmp_path)
    assert not judge_again(study, result).flips
    found = judge_again(study, replace(result, measurements={"gain": Measurement(0.5, 0, 0.9, 4)}))
    assert found.flips
    assert tuple(map(str, found.verdicts)) == ("reproduced", "refuted")
    assert [(str(c.before), str(c.status)) for c in found.checks] == [("met", "opposite")]


@pytest.mark.parametrize(
    ("stored", "value", "holds"),
    [
        (Measurement(1.0, 0.5, 1.5, 3), 1.5, True),
        (Measurement(1.0, 0.5, 1.5, 3), 1.51, False),
        (Measurement(1.0, 0.5, 1.5, 3), 0.49, False),
        (Measurement(1.0, 1.0, 1.0, 1), 1.0 + 5e-7, True),  # other processors round differently
        (Measurement(1.0, 1.0, 1.0, 1), 1.0 + 5e-6, False),
        (Measurement(0.0, 0.0, 0.0, 1), 0.0, True),
    ],
)
def test_within_the_stated_spread(stored: Measurement, value: float, holds: bool) -> None:
    assert within(stored, value) is holds


def test_a_result_of_other_claims_is_refused(toy_package: str, tmp_path: Path) -> None:
    study = discover(toy_package).get("doe2020toy")()
    result = run_study(study, "smoke", tmp_path)
    with pytest.raises(StudyError, match="does not contain 'gain'"):
        compare(study, replace(result, measurements={}), result)

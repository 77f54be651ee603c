from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from anyorder_studies import harness
from anyorder_studies.discovery import discover
from anyorder_studies.protocol import plan
from anyorder_studies.result import load_result
from anyorder_studies.study import MissingDataError, Status, Study, StudyError, Verdict

SRC = Path(harness.__file__).parents[1]
#: Says which unit it does. Where somebody stands ready to kill it, its third unit never ends.
WATCHED = """import os, sys
        print(unit["seed"], flush=True)
        if unit["seed"] == 2 and "TOY_IS_KILLED" in os.environ:
            sys.stdin.read()"""


def load(package: str, **arguments: int) -> Study:
    return discover(package).get("doe2020toy")(**arguments)


def units_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / harness.UNITS).read_text().splitlines()[1:]]


def test_a_run_writes_everything(toy_package: str, tmp_path: Path) -> None:
    result = harness.run_study(load(toy_package), "small", tmp_path / "out")
    assert result.verdict is Verdict.REPRODUCED
    assert result.statuses == (Status.MET,)
    assert result.seeds == (0, 1, 2, 3)
    assert result.measurements["gain"].value == pytest.approx(2.015)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"units.jsonl", "result.json", "README.md", "figure.svg"}
    assert load_result(tmp_path / "out") == load_result(tmp_path / "out")
    stored = load_result(tmp_path / "out")
    assert stored is not None
    assert stored.verdict is result.verdict
    assert stored.measurements == result.measurements


def test_seeds_are_what_was_asked_for(toy_package: str, tmp_path: Path) -> None:
    result = harness.run_study(load(toy_package, seeds=3), "smoke", tmp_path)
    assert result.seeds == (0, 1, 2)


def test_a_finished_run_is_not_done_twice(toy_package: str, tmp_path: Path) -> None:
    steps: list[tuple[int, int, int]] = []
    harness.run_units(load(toy_package), "small", tmp_path)
    before = (tmp_path / harness.UNITS).read_text()
    harness.run_units(
        load(toy_package), "small", tmp_path, progress=lambda *step: steps.append(step)
    )
    assert (tmp_path / harness.UNITS).read_text() == before
    assert steps[-1] == (4, 4, 4)
    _, seconds = harness.run_units(load(toy_package), "small", tmp_path, fresh=True)
    assert (tmp_path / harness.UNITS).read_text() != before or seconds >= 0


def test_more_seeds_keep_the_units_that_are_done(toy_package: str, tmp_path: Path) -> None:
    harness.run_units(load(toy_package, seeds=2), "small", tmp_path)
    steps: list[tuple[int, int, int]] = []
    results, _ = harness.run_units(
        load(toy_package, seeds=5), "small", tmp_path, progress=lambda *step: steps.append(step)
    )
    assert steps[0] == (2, 5, 2)
    assert [unit["seed"] for unit, _ in results] == [0, 1, 2, 3, 4]


def test_an_exception_keeps_what_was_done(
    make_package: Callable[..., str], toy: Callable[..., str], tmp_path: Path
) -> None:
    package = make_package(doe2020toy=toy(run="assert unit['seed'] < 2, 'stop'"))
    with pytest.raises(AssertionError, match="stop"):
        harness.run_units(load(package), "small", tmp_path)
    assert [line["unit"] for line in units_of(tmp_path)] == [{"seed": 0}, {"seed": 1}]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_resumes_and_gives_the_same_result(
    make_package: Callable[..., str], toy: Callable[..., str], tmp_path: Path, how: signal.Signals
) -> None:
    package = make_package(doe2020toy=toy(run=WATCHED))
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from pathlib import Path; from anyorder_studies.discovery import discover;"
        "from anyorder_studies.harness import run_study;"
        f"study = discover({package!r}).get('doe2020toy')();"
        f"run_study(study, 'small', Path({str(tmp_path / 'killed')!r}))"
    )
    paths = os.pathsep.join([str(tmp_path), str(SRC)])
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": paths, "TOY_IS_KILLED": "yes"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            if line.strip() == "2":
                process.send_signal(how)
                break
    assert process.returncode != 0
    before = units_of(tmp_path / "killed")
    assert [line["unit"] for line in before] == [{"seed": 0}, {"seed": 1}]
    assert not (tmp_path / "killed" / "result.json").exists()
    resumed = harness.run_study(load(package), "small", tmp_path / "killed")
    whole = harness.run_study(load(package), "small", tmp_path / "whole")
    assert resumed.measurements == whole.measurements
    after = units_of(tmp_path / "killed")
    assert after[:2] == before  # nothing was done twice
    assert [line["unit"] for line in after] == [{"seed": seed} for seed in range(4)]
    assert resumed.seconds == pytest.approx(sum(line["seconds"] for line in after))  # both parts


def test_changed_code_does_not_continue_an_old_run(
    make_package: Callable[..., str], toy: Callable[..., str], tmp_path: Path
) -> None:
    first, second = (make_package(doe2020toy=toy(run=run)) for run in ("pass", "unit = unit"))
    harness.run_units(load(first), "small", tmp_path)
    kept: list[int] = []
    harness.run_units(load(second), "small", tmp_path, progress=lambda *step: kept.append(step[2]))
    assert set(kept) == {0}


def test_missing_data_name_the_variable(
    make_package: Callable[..., str],
    toy: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = toy().replace("title: Class", 'data: ClassVar = ("stars",)\n    title: Class')
    study = load(make_package(doe2020toy=source))
    monkeypatch.delenv("ANYORDER_DATA", raising=False)
    with pytest.raises(MissingDataError, match="set ANYORDER_DATA"):
        harness.run_units(study, "smoke", tmp_path)


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ("[]", "no units"),
        ("[{'seed': 0}, {'seed': 0}]", "appears twice"),
        ("[{'seed': 0}]", "expected 2 seeds, but the units have 1"),
        ("[{'seed': {1}}]", "JSON values only"),
    ],
)
def test_units_that_cannot_be_kept_are_refused(
    make_package: Callable[..., str], toy: Callable[..., str], units: str, message: str
) -> None:
    source = toy()
    at = source.index('return [{"seed"')
    source = source[:at] + f"return {units}" + source[source.index("\n", at) :]
    with pytest.raises(StudyError, match=message):
        plan(load(make_package(doe2020toy=source)), "smoke")

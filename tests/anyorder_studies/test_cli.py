from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from anyorder_studies import cli, discovery, harness

Invoke = Callable[..., Any]


@pytest.fixture
def invoke(toy_package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Invoke:
    """Run the commands on a package of one toy study, in an empty folder."""
    monkeypatch.setattr(cli, "discover", lambda: discovery.discover(toy_package))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda *words: CliRunner().invoke(cli.app, list(words))


def test_list_before_and_after_a_stored_run(invoke: Invoke) -> None:
    assert "not run yet" in invoke("list").output
    assert invoke("run", "doe2020toy", "--store").exit_code == 0
    listed = json.loads(invoke("list", "--json").stdout)
    assert listed["broken"] == {}
    (row,) = listed["studies"]
    assert (row["key"], row["verdict"], row["scale"]) == ("doe2020toy", "reproduced", "small")
    assert row["change"] == ""
    assert "reproduced" in invoke("list").output


def test_run_writes_below_the_current_folder_only(invoke: Invoke, toy_package: str) -> None:
    done = invoke("run", "doe2020toy", "--scale", "smoke", "--seeds", "3", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["seeds"] == [0, 1, 2]
    assert Path("studies/doe2020toy/smoke/result.json").exists()
    folder = discovery.discover(toy_package).folders["doe2020toy"]
    assert not (folder / "result.json").exists()


def test_background_works_are_listed_without_a_number(
    make_package: Callable[..., str], toy: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = make_package(doe2020toy=toy().replace("[int] = 7", "[int | None] = None"))
    monkeypatch.setattr(cli, "discover", lambda: discovery.discover(package))
    listed = CliRunner().invoke(cli.app, ["list", "--json"])
    assert json.loads(listed.stdout)["studies"][0]["paper"] is None
    assert "None" not in CliRunner().invoke(cli.app, ["list"]).output
    assert "(Background, doe2020toy)" in CliRunner().invoke(cli.app, ["show", "doe2020toy"]).output


def test_out_is_respected(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("run", "doe2020toy", "--out", str(tmp_path / "there")).exit_code == 0
    assert (tmp_path / "there/doe2020toy/small/figure.svg").exists()
    assert not Path("studies").exists()


def test_show_tells_claim_measurement_and_command(invoke: Invoke) -> None:
    before = invoke("show", "doe2020toy").output
    assert "It gains & wins." in before
    assert "anyorder study run doe2020toy" in before
    invoke("run", "doe2020toy", "--store")
    after = invoke("show", "doe2020toy").output
    assert "reproduced" in after
    assert "2.015" in after
    shown = json.loads(invoke("show", "doe2020toy", "--json").stdout)
    assert shown["claims"][0]["source"] == "table 1"
    assert shown["result"]["verdict"] == "reproduced"


def test_verify_holds_and_differs_with_exit_codes(invoke: Invoke, toy_package: str) -> None:
    assert invoke("verify").exit_code == 1  # nothing is stored yet
    invoke("run", "doe2020toy", "--store")
    held = invoke("verify", "doe2020toy")
    assert held.exit_code == 0
    assert "stands" in held.output
    path = discovery.discover(toy_package).folders["doe2020toy"] / "result.json"
    stored = json.loads(path.read_text())
    stored["measurements"]["gain"] = {"value": 9.0, "low": 8.0, "high": 10.0, "n": 4}
    path.write_text(json.dumps(stored))
    assert invoke("verify").exit_code == 0  # the verdict is the same
    assert "differs" in invoke("verify", "--repeat").output
    differs = invoke("verify", "--repeat", "--json")
    assert differs.exit_code == 1
    found = json.loads(differs.stdout)["studies"]["doe2020toy"]
    assert found["holds"] is False
    assert found["claims"][0]["again"]["value"] == pytest.approx(2.015)


def test_verify_judges_again(invoke: Invoke, toy_package: str) -> None:
    invoke("run", "doe2020toy", "--store")
    folder = discovery.discover(toy_package).folders["doe2020toy"]
    stored = json.loads((folder / "result.json").read_text())
    stored["measurements"]["gain"] = {"value": 1.5, "low": 1.2, "high": 1.8, "n": 4}
    (folder / "result.json").write_text(json.dumps(stored))
    flipped = invoke("verify", "doe2020toy")
    assert flipped.exit_code == 1
    assert "reproduced, now partly: flips" in flipped.output
    assert invoke("verify", "doe2020toy", "--store").exit_code == 1
    assert json.loads((folder / "result.json").read_text())["verdict"] == "partly"
    assert "**partly**" in (folder / "README.md").read_text()
    assert invoke("verify", "doe2020toy").exit_code == 0


def test_claims_that_wait_for_a_run_fail_and_are_listed_on_the_page(
    invoke: Invoke, toy_package: str
) -> None:
    invoke("run", "doe2020toy", "--store")
    studies = discovery.discover(toy_package)
    study, page = studies.get("doe2020toy"), studies.folders["doe2020toy"] / "README.md"
    study.claims = (*study.claims, replace(study.claims[0], quantity="speed", central=False))
    waiting = invoke("verify", "doe2020toy", "--store")
    assert waiting.exit_code == 1
    assert "does not contain 'speed'" in waiting.output.replace("\n", " ")
    assert "Claims that this result does not contain yet:" in page.read_text()
    assert "(changed after results)" in invoke("list").output


def test_verify_measures_with_fresh_seeds(
    make_package: Callable[..., str], toy: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = "print('seed', unit['seed']); unit = {'seed': -200 if unit['seed'] > 9 else 0}"
    package = make_package(doe2020toy=toy(run=seen))
    monkeypatch.setattr(cli, "discover", lambda: discovery.discover(package))
    invoke = lambda *words: CliRunner().invoke(cli.app, list(words))  # noqa: E731
    assert invoke("run", "doe2020toy", "--store").exit_code == 0
    assert invoke("verify", "doe2020toy").exit_code == 0
    flipped = invoke("verify", "doe2020toy", "--fresh", "--json")
    assert flipped.exit_code == 1
    start = flipped.stdout.index("{\n")
    found = json.loads(flipped.stdout[start:])["studies"]["doe2020toy"]
    assert found["verdict"] == {"stored": "reproduced", "again": "refuted"}
    assert found["seeds"] == {"stored": [0, 1, 2, 3], "again": [10000, 10001, 10002, 10003]}
    table = invoke("verify", "doe2020toy", "--fresh", "--scale", "smoke").output
    assert "seed 10001" in table and "seed 10002" not in table
    assert "opposite" in table


def test_verify_with_fresh_seeds_holds(invoke: Invoke) -> None:
    invoke("run", "doe2020toy", "--store")
    # 2.0 + 0.01 * seed grows with the block of seeds: the claim is met all the more.
    assert invoke("verify", "doe2020toy", "--fresh").exit_code == 0


def test_verify_reads_results_from_elsewhere(invoke: Invoke, tmp_path: Path) -> None:
    invoke("run", "doe2020toy", "--out", str(tmp_path))
    (tmp_path / "doe2020toy/small").rename(tmp_path / "mine")
    (tmp_path / "doe2020toy").rmdir()
    (tmp_path / "mine").rename(tmp_path / "doe2020toy")
    assert invoke("verify", "--results", str(tmp_path)).exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "doe2020tyo"), "did you mean 'doe2020toy'"),
        (("run", "doe2020toy", "--scale", "tiny"), "unknown scale 'tiny'"),
        (("run", "doe2020toy", "--seeds", "0"), "at least one seed"),
        (
            ("run", "doe2020toy", "--store", "--scale", "smoke"),
            "need --scale small; leave --seeds out",
        ),
        (("run", "doe2020toy", "--store", "--seeds", "2"), "need --scale small; leave --seeds out"),
        (("show", "nothing"), "unknown study"),
        (("verify", "--fresh", "--repeat"), "choose --fresh (with or without --scale), --repeat"),
        (("verify", "--scale", "smoke"), "choose --fresh"),
        (("verify", "--fresh", "--store"), "choose --fresh"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    invoke: Invoke, words: tuple[str, ...], message: str
) -> None:
    done = invoke(*words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    "words",
    [
        ("gallery", "{}/below"),
        ("run", "doe2020toy", "--scale", "smoke", "--out", "{}"),
        ("verify", "--results", "{}"),
    ],
)
def test_a_place_that_cannot_be_used_is_named(
    invoke: Invoke, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("kept")
    invoke("run", "doe2020toy", "--store")
    done = invoke(*(word.format(tmp_path / "file") for word in words))
    assert isinstance(done.exception, SystemExit)  # no traceback
    if words[0] == "verify":
        assert (done.exit_code, "no stored result" in done.output) == (1, True)
    else:
        assert done.exit_code == 2
        assert done.stderr.splitlines()[-1].startswith(f"Error: cannot use {tmp_path / 'file'}")
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": 2}', "\xff", '{"format": 2, "scale": [1]}']
)
def test_a_damaged_result_hides_no_other_study(
    invoke: Invoke, toy_package: str, tmp_path: Path, content: str
) -> None:
    folder = discovery.discover(toy_package).folders["doe2020toy"]
    (folder / "result.json").write_bytes(content.encode("latin-1"))
    listed = json.loads(invoke("list", "--json").stdout)
    assert listed["studies"][0]["verdict"] is None
    assert str(folder / "result.json") in listed["broken"]["doe2020toy"]
    for words in (("show", "doe2020toy"), ("verify",)):
        done = invoke(*words)
        assert done.exit_code == 2
        assert done.stderr.startswith("Error: ")
    done = invoke("gallery", str(tmp_path / "site"))
    assert done.exit_code == 0
    assert "0 studies in" in done.stdout
    assert "broken study doe2020toy" in done.stderr


def test_an_interrupted_run_says_how_to_go_on(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(harness, "run_units", interrupt)
    done = invoke("run", "doe2020toy")
    assert done.exit_code == 130
    assert "run the same command again" in done.stderr


def test_broken_studies_are_reported(
    invoke: Invoke,
    make_package: Callable[..., str],
    toy: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = make_package(doe2020toy=toy(), roe2021crash="1 / 0")
    monkeypatch.setattr(cli, "discover", lambda: discovery.discover(both))
    listed = invoke("list")
    assert listed.exit_code == 0
    assert "doe2020toy" in listed.stdout
    assert "broken study roe2021crash: ZeroDivisionError" in listed.stderr
    invoke("run", "doe2020toy", "--store")
    assert invoke("verify", "doe2020toy").exit_code == 0
    assert invoke("verify").exit_code == 1


def test_gallery_is_written(invoke: Invoke, tmp_path: Path) -> None:
    invoke("run", "doe2020toy", "--store")
    done = invoke("gallery", str(tmp_path / "site"))
    assert done.exit_code == 0
    assert done.output.startswith("1 study in ")
    assert (tmp_path / "site/index.html").exists()

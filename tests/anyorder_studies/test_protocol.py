from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from anyorder_studies.discovery import Studies, discover
from anyorder_studies.gallery import entry_of, stored_studies, write_gallery
from anyorder_studies.harness import committed, run_study
from anyorder_studies.protocol import changes, code_hash, meaning, plan
from anyorder_studies.result import StudyResult, load_result
from anyorder_studies.study import Study, StudyError
from anyorder_studies.verify import rejudged

MakePackage = Callable[..., str]
Toy = Callable[..., str]


def load(package: str) -> Study:
    return discover(package).get("doe2020toy")()


@pytest.fixture
def changed(
    make_package: MakePackage, toy: Toy, tmp_path: Path
) -> Callable[..., tuple[Studies, StudyResult]]:
    """Run the toy study, then replace a part of its source: the studies, and the old result."""

    def change(old: str, new: str) -> tuple[Studies, StudyResult]:
        result = run_study(load(make_package(doe2020toy=toy())), "small", tmp_path / "out")
        assert old in toy()
        after = discover(make_package(doe2020toy=toy().replace(old, new)))
        folder = after.folders["doe2020toy"]
        for path in (tmp_path / "out").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        return after, result

    return change


@pytest.mark.parametrize(
    ("old", "new", "badge"),
    [
        ("expected=2.0", "expected=1.9", "changed after results"),
        ("threshold=1.0", "threshold=1.5", "changed after results"),
        ("tolerance=0.1", "tolerance=0.2", "changed after results"),
        ('"small": {{"seeds": 4}}'.replace("{{", "{").replace("}}", "}"),
         '"small": {"seeds": 5}', "changed after results"),
        ('{"seed": seed}', '{"seed": seed, "steps": 3}', "changed after results"),
        ('[1.0, 2.0]', '[1.0, 3.0]', "code changed"),
        ("It gains & wins.", "It wins.", ""),
        ('"smoke": {"seeds": 2}', '"smoke": {"seeds": 3}', ""),  # another scale than the stored
        ("A toy | study.", "A toy.", ""),
    ],
)  # fmt: skip
def test_a_change_after_the_run_is_shown_everywhere(
    changed: Callable[..., tuple[Studies, StudyResult]],
    tmp_path: Path,
    old: str,
    new: str,
    badge: str,
) -> None:
    studies, result = changed(old, new)
    assert str(changes(studies.get("doe2020toy")(), result) or "") == badge
    (stored,), broken = stored_studies(studies)
    assert broken == {}
    entry = entry_of(stored)
    assert entry.change == badge
    page = write_gallery(tmp_path / "site", [entry]).read_text()
    assert (f'<span class="badge changed">{badge}</span>' in page) == bool(badge)


def test_a_judgement_of_changed_claims_keeps_the_badge(
    changed: Callable[..., tuple[Studies, StudyResult]],
) -> None:
    studies, result = changed("expected=2.0", "expected=3.0")
    study = studies.get("doe2020toy")()
    again = rejudged(study, result)
    assert (str(result.verdict), str(again.verdict)) == ("reproduced", "partly")
    assert again.claims[0].expected == 3.0
    assert str(changes(study, again)) == "changed after results"


def test_a_claim_that_was_not_measured_leaves_the_old_verdict(
    changed: Callable[..., tuple[Studies, StudyResult]],
) -> None:
    studies, result = changed('quantity="gain"', 'quantity="speed"')
    study = studies.get("doe2020toy")()
    with pytest.raises(StudyError, match="does not contain 'speed'; run the study again"):
        rejudged(study, result)
    (stored,), broken = stored_studies(studies)
    assert broken == {}
    entry = entry_of(stored)
    assert (entry.verdict, entry.change) == ("reproduced", "changed after results")


def git(folder: Path, *words: str) -> str:
    name = ["-c", "user.name=doe", "-c", "user.email=doe@example.org"]
    done = subprocess.run(
        ["git", *name, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_claims_are_committed_before_a_stored_run(toy_package: str) -> None:
    studies = discover(toy_package)
    study, folder = studies.get("doe2020toy"), studies.folders["doe2020toy"]
    assert committed(study) is None  # no repository
    git(folder.parent, "init", "-q")
    git(folder.parent, "add", "*.py")
    git(folder.parent, "commit", "-qm", "claims")
    assert committed(study) == git(folder.parent, "rev-parse", "HEAD")
    (folder / "result.json").write_text("{}")
    assert committed(study) is not None  # results are no code
    (folder / "study.py").write_text((folder / "study.py").read_text() + "# changed\n")
    with pytest.raises(
        StudyError, match=r"committed before it; commit these files first:\n.*study"
    ):
        committed(study)


def test_a_result_of_format_1_says_what_to_do(toy_package: str, tmp_path: Path) -> None:
    run_study(load(toy_package), "smoke", tmp_path)
    data = json.loads((tmp_path / "result.json").read_text())
    (tmp_path / "result.json").write_text(json.dumps({**data, "format": 1}))
    with pytest.raises(StudyError, match="format 2, got 1: run the study again"):
        load_result(tmp_path)


def test_several_tunings_multiply_the_seeds(make_package: MakePackage, toy: Toy) -> None:
    source = toy().replace('"smoke": {"seeds": 2}', '"smoke": {"seeds": 2, "tunings": 3}')
    with pytest.raises(StudyError, match="expected 6 seeds, but the units have 2"):
        plan(load(make_package(doe2020toy=source)), "smoke")


def test_hashes_follow_the_code(make_package: Callable[..., str], toy: Callable[..., str]) -> None:
    one, same, other = (make_package(doe2020toy=toy(run=r)) for r in ("pass", "pass", "x = 1"))
    codes = [code_hash(type(load(package))) for package in (one, same, other)]
    assert codes[0] == codes[1] != codes[2]


def test_the_code_hash_follows_what_code_does() -> None:
    code = 'import a\nx: int = a.f(1)  # so many\ndef g():\n    "Words."\n    return x\n'
    same = 'from b import a\n\nx = a.f(1)\n\n\ndef g():\n    """Others."""\n    return x\n'
    assert meaning(code) == meaning(same)
    for other in ("a.f(2)", "a.g(1)"):
        assert meaning(code) != meaning(code.replace("a.f(1)", other))
    assert meaning(code) != meaning(code.replace("return x", "return -x"))

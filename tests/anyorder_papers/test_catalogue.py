"""The shipped catalogue is whole, and damaged entries are refused by name."""

from __future__ import annotations

import importlib
import importlib.util
import re
import tomllib
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from anyorder_papers import catalogue
from anyorder_papers.catalogue import (
    KINDS,
    ORDERS,
    STATES,
    TOPICS,
    CatalogueError,
    Paper,
    background,
    get,
    load,
    parse,
    read_file,
    state_of,
    study_of,
    verdict_of,
    verdicts,
)
from anyorder_papers.evidence import Stored, study_exists

ENTRY: dict[str, Any] = {
    "id": 5,
    "title": "A title",
    "topic": "first",
    "order": "1",
    "description": "Does something for somebody.",
    "listings": ["000"],
    "state": "planned",
}


def paper(**changes: Any) -> Paper:
    return parse({"paper": [{**ENTRY, **changes}]}, {})[0]


def stored(key: str, number: int | None) -> Stored:
    return Stored(key, number, "reproduced", 1.0, "small", Path())


def test_all_papers_are_there_once() -> None:
    papers = load()
    assert [p.id for p in papers] == list(range(1, 134))
    assert len({p.title for p in papers}) == 133
    arxiv = [p.arxiv for p in papers if p.arxiv]
    assert len(arxiv) == len(set(arxiv))


def test_every_topic_order_and_kind_is_known_and_used() -> None:
    papers = load()
    assert {p.topic for p in papers} == set(TOPICS)
    assert {p.order for p in papers} == set(ORDERS)
    assert {p.state for p in papers} <= set(STATES)
    assert {p.kind for p in papers if p.state == "no system"} <= set(KINDS)
    assert all(p.kind == "" for p in papers if p.state != "no system")


def test_descriptions_are_one_or_two_sentences_and_differ() -> None:
    papers = load()
    assert len({p.description for p in papers}) == len(papers)
    for p in papers:
        sentences = re.findall(r"[.](?= [A-Z]|$)", p.description)
        assert 1 <= len(sentences) <= 2, (p.id, p.description)
        assert 40 <= len(p.description) <= 320, (p.id, len(p.description))


def test_no_abstract_and_no_verdict_is_shipped() -> None:
    text = (resources.files("anyorder_papers") / "papers.toml").read_text(encoding="utf-8")
    keys = {key for entry in tomllib.loads(text)["paper"] for key in entry}
    assert not keys & {"abstract", "verdict", "claimed"}
    assert all(p.abstract == "" for p in load())


def test_the_month_of_the_arxiv_number_fits_the_date() -> None:
    """A paper is numbered in the month of its first version, or the next if it waited."""
    for p in load():
        if p.date and p.month:
            months = (p.month.year - p.date.year) * 12 + p.month.month - p.date.month
            assert months in (0, 1), (p.id, p.date, p.arxiv)
            assert months == 0 or p.date.day >= 24, (p.id, p.date, p.arxiv)


def test_every_paper_can_be_sorted_by_date() -> None:
    assert all(p.when for p in load())


def test_every_module_named_exists_and_imports() -> None:
    for p in load():
        if p.module:
            importlib.import_module(p.module)


def test_every_study_named_exists() -> None:
    missing = [p.study for p in load() if p.study and not study_exists(p.study)]
    assert not missing


def test_no_claim_goes_beyond_what_exists() -> None:
    for p in load():
        assert p.claimed in ("planned", "no system") or p.state == p.claimed, p.title


def test_every_study_is_in_the_catalogue() -> None:
    if importlib.util.find_spec("anyorder_studies") is None:
        pytest.skip("the studies are not installed")
    from anyorder_studies.discovery import discover

    named = {p.study for p in load()} | set(background())
    for key, study in discover().classes.items():
        # A study that is not named joins the paper that it measures as soon as it has a result.
        assert key in named or get(study.paper).state != "no system", key


def test_verdicts_come_from_the_stored_results() -> None:
    for key, verdict in verdicts().items():
        of = [p for p in load() if p.study == key]
        assert all(verdict_of(p) == verdict for p in of)
    assert verdict_of(paper(study="nobody2000z")) == ""
    assert study_of(paper()) is None


def test_get() -> None:
    assert get(16).title.startswith("ADAHESSIAN")
    assert get(5, [paper()]).title == "A title"
    with pytest.raises(CatalogueError, match="no paper 134"):
        get(134)


@pytest.mark.parametrize(
    ("claimed", "module", "study", "state"),
    [
        ("planned", "", "", "planned"),
        ("planned", "no_such.module", "s", "partly"),
        ("planned", "no_such.module", "t", "planned"),
        ("planned", "anyorder_papers.words", "", "partly"),
        ("planned", "anyorder_papers.words", "s", "works"),
        ("works", "anyorder_papers.words", "s", "works"),
        ("works", "anyorder_papers.words", "t", "partly"),
        ("works", "", "", "planned"),
        ("partly", "anyorder_papers.words", "s", "partly"),
        ("partly", "", "", "planned"),
        ("no system", "anyorder_papers.words", "s", "no system"),
        ("new", "", "", "new"),
    ],
)
def test_state_is_worked_out(claimed: str, module: str, study: str, state: str) -> None:
    assert state_of(claimed, module=module, study=study, stored=["s"]) == state


def test_unknown_state() -> None:
    with pytest.raises(CatalogueError, match=r"paper 9: expected a state .*'done'"):
        state_of("done", module="", study="", stored=[], paper=9)


def test_a_result_finds_its_paper() -> None:
    both = {"b2020": stored("b2020", 5), "a2020": stored("a2020", 5), "c2020": stored("c2020", 6)}
    assert parse({"paper": [ENTRY]}, both)[0].study == "a2020"
    named = {**ENTRY, "study": "c2020", "module": "anyorder_papers.words"}
    assert parse({"paper": [named]}, both)[0].study == "c2020"
    assert parse({"paper": [named]}, both)[0].state == "works"


def test_background_studies_claim_no_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    key = next(iter(background()))
    monkeypatch.setattr(catalogue, "results", lambda: {key: stored(key, 17)})
    load.cache_clear()
    try:
        assert get(17).study != key
    finally:
        load.cache_clear()


def test_dates() -> None:
    day = paper(date=date(2023, 6, 2), arxiv="2306.01685")
    assert (day.when, day.shown_date) == (date(2023, 6, 2), "2023-06-02")
    month = paper(arxiv="2306.01685")
    assert (month.when, month.shown_date) == (date(2023, 6, 1), "2023-06")
    old = paper(arxiv="hep-ex/9807015")
    assert old.shown_date == "1998-07"
    assert old.url == "https://arxiv.org/abs/hep-ex/9807015"
    assert (paper().when, paper().shown_date, paper().url) == (None, "", "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"topic": "cooking"}, "topic as one of .*'zeroth'.* got 'cooking'"),
        ({"topic": "unsorted"}, "topic"),
        ({"order": "3"}, "order"),
        ({"order": 1}, "order as str"),
        ({"state": "done"}, "expected a state"),
        ({"state": "new"}, "state as one of"),
        ({"kind": "review"}, "kind"),
        ({"state": "no system"}, "kind"),
        ({"state": "no system", "kind": "joke"}, "kind"),
        ({"arxiv": "2306.1685v2"}, "without version"),
        ({"authors": 0}, "authors from 1 on"),
        ({"authors": True}, "authors as int"),
        ({"authors": "4"}, "authors as int"),
        ({"listed_count": -1}, "listed_count from 1 on"),
        ({"date": "2023-06-02"}, "date as date"),
        ({"title": " "}, "title"),
        ({"description": ""}, "description"),
        ({"id": 0}, "number from 1 on"),
        ({"verdict": "reproduced"}, "unknown field verdict"),
        ({"claimed": "works"}, "unknown field claimed"),
    ],
)
def test_entries_that_are_not_valid(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CatalogueError, match=message):
        paper(**changes)


def test_missing_field_and_double_number() -> None:
    with pytest.raises(CatalogueError, match="paper 5: missing title, state"):
        parse({"paper": [{k: v for k, v in ENTRY.items() if k not in ("title", "state")}]}, {})
    with pytest.raises(CatalogueError, match=r"repeated: \[5\]"):
        parse({"paper": [ENTRY, ENTRY]}, {})


def test_a_file_that_is_not_toml(tmp_path: Path) -> None:
    path = tmp_path / "papers.toml"
    for content in (b"[[paper", b"\xff"):
        path.write_bytes(content)
        with pytest.raises(CatalogueError, match=r"papers\.toml: expected a TOML file"):
            read_file(path)


def test_a_paper_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        get(1).title = "other"  # type: ignore[misc]

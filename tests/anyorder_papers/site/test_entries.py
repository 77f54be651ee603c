"""Papers joined with studies, and what a digest can announce of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from anyorder_papers.catalogue import Paper, load
from anyorder_papers.site.entries import (
    VERDICTS,
    Entry,
    Library,
    StudyView,
    library,
    load_library,
    topic_name,
)


def test_the_catalogue_and_its_results_come_together() -> None:
    from anyorder_papers.evidence import results

    found = load_library()
    assert len(found.papers) >= len(load())
    assert set(VERDICTS) >= {study.verdict for _, study in found.studied}
    assert {study.key for _, study in found.studied} == set(results())


def test_every_gallery_shows_the_same_studies() -> None:
    from anyorder_papers.catalogue import background
    from anyorder_studies.gallery import gallery

    found = load_library()
    assert {study.key for _, study in found.studied} == {entry.key for entry in gallery()}
    assert set(found.others) == set(background())
    assert all(study.work == background()[key] for key, study in found.others.items())


def test_verdict_names_match_the_studies() -> None:
    from anyorder_studies.study import Verdict

    assert {str(verdict) for verdict in Verdict} == set(VERDICTS)


def test_the_catalogues_own_study_comes_first(
    make_paper: Callable[..., Paper], make_study: Callable[..., StudyView]
) -> None:
    studies = [make_study(key="a2020x", paper=1), make_study(key="z2020y", paper=1)]
    entry = library([make_paper(1, study="z2020y")], studies).entries[0]
    assert [study.key for study in entry.studies] == ["z2020y", "a2020x"]


def test_studies_of_other_works_have_pages_of_their_own(
    make_paper: Callable[..., Paper], make_study: Callable[..., StudyView]
) -> None:
    studies = [make_study(key="b2020x", paper=None), make_study(key="a2020x", paper=1)]
    found = library([make_paper(1), make_paper(2)], studies)
    assert [(page, study.key) for page, study in found.studied] == [
        ("paper/1", "a2020x"),
        ("study/b2020x", "b2020x"),
    ]
    assert found.announced()["study:b2020x:reproduced"].path == "/study/b2020x"


def test_neighbours_follow_the_dates(small_library: Library) -> None:
    entries = small_library.entries
    assert small_library.neighbours(entries[0]) == (None, entries[1])
    assert small_library.neighbours(entries[-1]) == (entries[-2], None)


def test_an_abstract_comes_from_a_listing_or_with_the_paper(
    make_paper: Callable[..., Paper],
) -> None:
    papers = [make_paper(1), make_paper(1002, abstract="Its own.", topic="unsorted", state="new")]
    found = library(papers, [], {1: "Listed."})
    assert {e.paper.id: e.abstract for e in found.entries} == {1: "Listed.", 1002: "Its own."}
    assert found.by_id[1].paper.abstract == ""  # a search finds the same without the listings


def test_verdicts_of_entries(make_paper: Callable[..., Paper], small_library: Library) -> None:
    assert small_library.by_id[71].verdict == "reproduced"
    assert Entry(make_paper(1, study="x2020y")).verdict == "not run yet"
    assert Entry(make_paper(1)).verdict == ""


@pytest.mark.parametrize(
    ("number", "link"),
    [
        ("2302.06675", "2302.06675"),
        ("cs/0112017", "cs/0112017"),
        ("math.OC/0112017", "math.OC/0112017"),
        ("", None),
        ("javascript:alert(1)", None),
        ("2302.06675/../x", None),
        ("2302.06675\n", None),
    ],
)
def test_only_arxiv_numbers_become_links(
    make_paper: Callable[..., Paper], number: str, link: str | None
) -> None:
    assert Entry(make_paper(1, arxiv=number)).arxiv == link


def test_only_modules_that_exist_are_named(make_paper: Callable[..., Paper]) -> None:
    assert Entry(make_paper(1, module="anyorder.errors")).importable == "import anyorder.errors"
    assert Entry(make_paper(1, module="anyorder.no_such")).importable is None
    assert Entry(make_paper(1, module="os; import x")).importable is None
    assert Entry(make_paper(1)).importable is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "under 1 s"), (1.4, "1 s"), (99.4, "99 s"), (100.0, "2 min"), (3600.0, "60 min")],
)
def test_durations(make_study: Callable[..., StudyView], seconds: float, text: str) -> None:
    assert make_study(seconds=seconds).duration == text


def test_announced_items_are_single_lines_with_their_own_keys(small_library: Library) -> None:
    items = small_library.announced()
    assert {"paper:71", "study:chen2023lion:reproduced", "study:vinyals2015sets:refuted"} <= set(
        items
    )
    assert all("\n" not in item.title + item.text for item in items.values())
    study = items["study:vinyals2015sets:refuted"]
    assert study.title == "Refuted: Order in sets"
    assert study.path == "/paper/100"


def test_a_new_verdict_is_a_new_item(
    make_paper: Callable[..., Paper], make_study: Callable[..., StudyView]
) -> None:
    before = library([make_paper(71)], [make_study(verdict="partly")]).announced()
    after = library([make_paper(71)], [make_study(verdict="reproduced")]).announced()
    assert set(after) - set(before) == {"study:chen2023lion:reproduced"}


def test_topics_have_short_names() -> None:
    assert topic_name("zeroth") == "Optimisers without gradients"
    assert topic_name("unsorted") == "unsorted"

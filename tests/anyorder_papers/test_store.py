"""A user's own papers: where they lie, what is known already, and that nothing is lost."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

import pytest

from anyorder_papers import store
from anyorder_papers.arxiv import Preprint
from anyorder_papers.catalogue import CatalogueError, get, load, parse
from anyorder_papers.errors import PapersError
from anyorder_papers.listing import Merged
from anyorder_papers.store import add, all_papers, dump, home, own_file, own_papers

FOG = Preprint("2512.01234", "Walking downhill in the fog", "We walk.", 2, date(2025, 12, 1))
LISTED = Merged("Seen in a listing", "It says so.", 3, date(2025, 5, 4), 7, ("000", "002"))


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANYORDER_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


def test_nothing_is_there_before_the_first_import(own_home: Path) -> None:
    assert own_papers() == ()
    assert all_papers() == load()
    assert not own_home.exists()


def test_imported_papers_come_after_the_catalogue(own_home: Path) -> None:
    added, met = add([FOG, LISTED])
    assert [paper.id for paper in added] == [1001, 1002]
    assert met == ()
    assert own_file() == own_home / "papers.toml"
    assert own_papers() == added
    assert all_papers() == (*load(), *added)
    fog, listed = added
    assert (fog.topic, fog.state, fog.order, fog.arxiv) == ("unsorted", "new", "none", FOG.id)
    assert (fog.authors, fog.date, fog.abstract) == (2, date(2025, 12, 1), "We walk.")
    assert (listed.listings, listed.listed_count, listed.arxiv) == (("000", "002"), 7, "")


def test_known_papers_are_met_and_not_added() -> None:
    add([FOG])
    by_number = Preprint(FOG.id, "Renamed since", "", 2, FOG.date)
    by_title = Preprint("2512.99999", "Walking: downhill, in the FOG", "", 2, FOG.date)
    seed = Preprint("2006.00719", "AdaHessian", "", 6, date(2020, 6, 1))
    added, met = add([by_number, by_title, seed, LISTED, LISTED])
    assert [paper.title for paper in added] == [LISTED.title]
    assert [paper.id for paper in met] == [1001, 1001, 16, 1002]
    assert [paper.id for paper in own_papers()] == [1001, 1002]


def test_an_import_of_known_papers_alone_writes_nothing(own_home: Path) -> None:
    assert add([Preprint("2006.00719", "AdaHessian", "", 6, date(2020, 6, 1))])[0] == ()
    assert not own_home.exists()


def test_titles_in_other_scripts_are_not_taken_for_one_another() -> None:
    titles = ["Оптимизация", "最適化", "ßé — æøå"]
    added, _ = add([Preprint(f"2512.0000{i}", t, "", 1, FOG.date) for i, t in enumerate(titles)])
    assert [paper.title for paper in own_papers()] == titles == [p.title for p in added]


def test_what_a_feed_smuggles_in_is_made_harmless() -> None:
    nasty = 'Quo"te\\ \x1b[31mred\x7f\n[[paper]]\nid = 1 \u2028\u202e end'
    add([Preprint("2512.00009", nasty, nasty, 1, FOG.date)])
    (paper,) = own_papers()
    assert paper.title == 'Quo"te\\ [31mred [[paper]] id = 1 end'
    assert paper.abstract.isprintable()


def test_a_damaged_file_is_named_and_kept(own_home: Path) -> None:
    own_home.mkdir()
    own_file().write_text("[[paper", encoding="utf-8")
    with pytest.raises(CatalogueError, match=r"papers\.toml"):
        add([FOG])
    assert own_file().read_text(encoding="utf-8") == "[[paper"


def test_an_interrupted_write_leaves_the_old_file(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add([FOG])
    before = own_file().read_bytes()

    def broken(self: Path, target: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        add([LISTED])
    assert own_file().read_bytes() == before
    assert [path.name for path in own_home.iterdir()] == ["papers.toml"]


def test_dump_and_parse_are_inverse() -> None:
    import tomllib

    again = parse(tomllib.loads(dump(load())), {})
    assert [p.title for p in again] == [p.title for p in load()]
    assert [(p.claimed, p.date, p.listings) for p in again] == [
        (p.claimed, p.date, p.listings) for p in load()
    ]


def test_imported_papers_are_found_by_number() -> None:
    add([FOG])
    assert get(1001, all_papers()).title == FOG.title


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_DATA_HOME": "/x/data"}, "/x/data/anyorder"),
        ("linux", {"XDG_DATA_HOME": ""}, "HOME/.local/share/anyorder"),
        ("darwin", {}, "HOME/Library/Application Support/anyorder"),
        ("win32", {"LOCALAPPDATA": "/x/local"}, "/x/local/anyorder"),
        ("win32", {"LOCALAPPDATA": ""}, "HOME/AppData/Local/anyorder"),
    ],
)
def test_the_platforms_place_for_data(
    platform: str, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANYORDER_HOME")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert home() == Path(expected.replace("HOME", str(Path.home())))


def test_own_place_wins_and_may_be_written_with_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYORDER_HOME", "~/mine")
    assert home() == Path.home() / "mine"
    assert store.votes_file() == home() / "papers.sqlite3"


def test_a_home_of_nobody_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYORDER_HOME", "~nobody-has-this-name/papers")
    with pytest.raises(PapersError, match="expected a folder in ANYORDER_HOME"):
        home()

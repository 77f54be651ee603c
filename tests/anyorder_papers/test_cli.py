"""``anyorder papers`` as a user types it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from anyorder_papers import arxiv, cli, store
from anyorder_papers.catalogue import load
from anyorder_papers.cli import app

FEED = """<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom">
  <entry>
    <id>http://arxiv.org/abs/2512.01234v1</id>
    <published>2025-12-01T17:59:59Z</published>
    <title>Walking [bold]downhill[/bold] in the fog</title>
    <summary>Knitting hyperbolic scarves.</summary>
    <author><name>Ada Example</name></author>
  </entry>
  <entry>
    <id>http://arxiv.org/abs/2006.00719v3</id>
    <published>2020-06-01T17:59:59Z</published>
    <title>AdaHessian</title>
    <summary>Known already.</summary>
  </entry>
</feed>
"""
LISTING = "The page\n\nDec 10\n\nSeen in a listing\n\nIt says so.\n\n  • 3 authors\n·\nMay 4 7\n"

runner = CliRunner()


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANYORDER_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "data"


def run(*arguments: str, code: int = 0) -> str:
    result = runner.invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result.output


def rows(*arguments: str, code: int = 0) -> list[dict[str, Any]]:
    result = runner.invoke(app, [*arguments, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_a_question_needs_no_command() -> None:
    found = rows("fine-tune with little memory", "--limit", "5")
    assert {row["id"] for row in found} == {12, 17, 112, 73, 124}
    assert found == rows("search", "fine-tune with little memory", "--limit", "5")
    assert found == rows("fine-tune", "with", "little", "memory", "--limit", "5")
    scores = [row["score"] for row in found]
    assert scores == sorted(scores, reverse=True)


def test_a_question_shows_ten_and_no_question_all() -> None:
    assert len(rows("language models")) == 10
    assert len(rows("language models", "--limit", "30")) == 30
    assert len(rows()) == 133
    assert len(rows("--limit", "3")) == 3


def test_filters() -> None:
    for name, value in (("topic", "second"), ("order", "rank"), ("state", "no system")):
        found = rows(f"--{name}", value)
        expected = {paper.id for paper in load() if getattr(paper, name) == value}
        assert {row["id"] for row in found} == expected
    both = rows("optimiser", "--topic", "first", "--order", "1")
    assert both
    assert all((row["topic"], row["order"]) == ("first", "1") for row in both)


@pytest.mark.parametrize("name", ["topic", "order", "state"])
def test_an_unknown_filter_names_the_known(name: str) -> None:
    output = run(f"--{name}", "cooking", code=2)
    assert f"no {name} 'cooking'; known are" in output


def test_sorting() -> None:
    titles = [row["title"].casefold() for row in rows("--sort", "title")]
    assert titles == sorted(titles)
    newest = [row["date"][:7] for row in rows("--sort", "date")]
    assert newest == sorted(newest, reverse=True)
    assert [row["id"] for row in rows()] == [row["id"] for row in rows("--sort", "date")]
    best = {row["id"] for row in rows("diffusion", "--limit", "4")}
    by_date = rows("diffusion", "--limit", "4", "--sort", "date")
    assert {row["id"] for row in by_date} == best, "the best are taken first, then sorted"


def test_votes_sort_first_and_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_votes", lambda: {50: 3, 7: 9})
    assert [row["id"] for row in rows("--sort", "votes", "--limit", "2")] == [7, 50]
    assert rows("--limit", "1")[0]["votes"] == 0
    lines = run("--sort", "votes", "--limit", "1").splitlines()
    assert lines[0].split()[-1] == "votes"
    assert lines[1].split()[-1] == "9"
    assert "votes" in run("show", "7")


def test_without_the_sites_database_nobody_has_voted(own_home: Path) -> None:
    assert all(row["votes"] == 0 for row in rows("--sort", "votes"))
    assert "There are no votes yet; newest first." in run("--sort", "votes")
    assert not own_home.exists()


def test_votes_come_from_the_sites_database() -> None:
    if importlib.util.find_spec("sqlalchemy") is None:
        pytest.skip("the site's database library is not installed")
    from anyorder_papers.database import Database
    from anyorder_papers.votes import toggle

    database = Database()
    toggle(database, 16, "0" * 64, "1" * 64, 0)
    database.close()
    assert store.votes_file().exists()
    (first, *_) = rows("--sort", "votes")
    assert (first["id"], first["votes"]) == (16, 1)


def test_nothing_found_is_exit_code_one() -> None:
    assert "No paper matches" in run("xyzzyq", code=1)
    assert rows("xyzzyq", code=1) == []
    assert rows("--topic", "graphs", "--order", "rank", code=1) == []


def test_an_unknown_engine_is_refused() -> None:
    assert "search engine (words, meaning), got 'magic'" in run("x", "--engine", "magic", code=2)


def test_show() -> None:
    output = run("show", "16")
    assert "[16] ADAHESSIAN" in output
    assert "https://arxiv.org/abs/2006.00719" in output
    row = json.loads(run("show", "16", "--json"))
    assert (row["id"], row["topic"], row["date"], row["authors"]) == (16, "second", "2020-06-01", 6)
    assert "no paper 999" in run("show", "999", code=2)
    assert run("show", "sixteen", code=2)


def test_show_a_measurement_says_so() -> None:
    assert "no system (measurement)" in run("show", "1")


def test_help_names_commands_and_exit_codes() -> None:
    output = run("--help")
    for word in ("search", "show", "import", "Exit codes", "little memory"):
        assert word in output
    assert "--topic" in run("search", "--help")


def test_import_a_feed_and_find_it(tmp_path: Path) -> None:
    path = tmp_path / "feed.xml"
    path.write_text(FEED, encoding="utf-8")
    output = run("import", str(path))
    assert "[1001] Walking [bold]downhill[/bold] in the fog" in output
    assert "1 added" in output
    assert "1 already known" in output
    assert "0 added" in run("import", str(path))
    (row,) = rows("hyperbolic scarves")
    assert (row["id"], row["topic"], row["state"]) == (1001, "unsorted", "new")
    assert "Walking [bold]downhill[/bold]" in run("hyperbolic scarves")
    assert "Knitting hyperbolic scarves." in run("show", "1001")
    assert len(rows("--state", "new")) == len(rows("--topic", "unsorted")) == 1


def test_import_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        return FEED.encode()

    monkeypatch.setattr(arxiv, "fetch", fetch)
    url = "https://export.arxiv.org/api/query?id_list=2512.01234"
    assert json.loads(run("import", url, "--json")) == {
        "added": [1001],
        "known": [16],
        "file": str(store.own_file()),
    }
    assert asked == [url]


def test_import_a_folder_of_listings(tmp_path: Path) -> None:
    folder = tmp_path / "listings"
    folder.mkdir()
    (folder / "000_a.txt").write_text(LISTING, encoding="utf-8")
    (folder / "001_b.txt").write_text(LISTING.replace("May 4 7", "May 4, 2025"), encoding="utf-8")
    assert "--year 000=YEAR" in run("import", str(folder), code=2)
    assert "1 added" in run("import", str(folder), "--year", "2026", "--year", "000=2025")
    (row,) = rows("--state", "new")
    assert (row["date"], row["listed_count"]) == ("2025-05-04", 7)
    assert row["listings"] == ["000", "001"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/no/such/place"], "there is no such file"),
        (["https://example.org/feed"], "address of the arXiv API"),
        (["https://export.arxiv.org/api/query", "--year", "2025"], "--year is for a folder"),
        ([".", "--year", "25"], "expected --year YEAR"),
        ([".", "--year", "x=y"], "expected --year YEAR"),
    ],
)
def test_import_refuses(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in run("import", *arguments, code=2)


def test_import_refuses_a_file_that_is_no_feed(tmp_path: Path) -> None:
    path = tmp_path / "feed.xml"
    path.write_text("Rate exceeded.", encoding="utf-8")
    assert "expected an Atom feed" in run("import", str(path), code=2)


def test_a_damaged_own_file_is_named(own_home: Path) -> None:
    own_home.mkdir()
    store.own_file().write_text("[[", encoding="utf-8")
    assert "papers.toml: expected a TOML file" in run("memory", code=2)


def test_the_seed_listings_hold_nothing_new() -> None:
    folder = os.environ.get("ANYORDER_SEEDS", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("ANYORDER_SEEDS names no folder with the seed listings")
    found = json.loads(run("import", folder, "--year", "2025", "--year", "000=2026", "--json"))
    assert found["added"] == []
    assert found["known"] == list(range(1, 134))


def test_the_sites_commands_are_there_when_its_libraries_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not cli._site_is_installed():
        pytest.skip("the site's libraries are not installed")
    assert set(cli._site_commands()) == set(cli.SITE_COMMANDS)
    output = run("--help")
    for name in cli.SITE_COMMANDS:
        assert f" {name} " in output
        assert name in run(name, "--help")
    monkeypatch.setattr(cli, "SITE_NEEDS", ("no_such_library",))
    monkeypatch.setattr(cli, "SITE_COMMANDS", ("unbuilt",))
    assert "unbuilt needs: pip install 'anyorder-papers[site]'" in run("unbuilt", code=2)


def test_below_another_program() -> None:
    """As the group ``papers`` of the ``anyorder`` program."""
    parent = typer.Typer()
    parent.add_typer(app)

    @parent.command()
    def other() -> None:
        """Something else."""

    result = runner.invoke(parent, ["papers", "little memory", "--limit", "1", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)[0]["id"] == 12
    assert runner.invoke(parent, ["papers", "show", "16"]).exit_code == 0
    assert runner.invoke(parent, ["papers", "--topic", "second"]).exit_code == 0


def test_listing_papers_imports_no_database_server_or_model() -> None:
    """Checked in a fresh process, since other tests import both."""
    code = (
        "import sys; from anyorder_papers.cli import app;"
        "app(['memory', '--limit', '1'], standalone_mode=False);"
        "bad = {'sqlalchemy', 'starlette', 'transformers'} & set(sys.modules); assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

"""The site as plain files."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest

from anyorder_papers.catalogue import load
from anyorder_papers.search import WEIGHTS, WordIndex
from anyorder_papers.site.entries import Library, library
from anyorder_papers.site.export import ExportError, export, search_index
from anyorder_papers.words import tokens


@pytest.fixture
def folder(small_library: Library, tmp_path: Path) -> Path:
    export(small_library, tmp_path / "out")
    return tmp_path / "out"


def test_every_page_is_there(folder: Path) -> None:
    pages = {str(path.relative_to(folder)) for path in folder.rglob("*.html")}
    assert pages == {
        "index.html",
        "gallery.html",
        "dates.html",
        "study/malladi2023mezo.html",
        *(f"paper/{number}.html" for number in (12, 71, 100, 104, 1001)),
    }
    assert (folder / "figures" / "chen2023lion.svg").is_file()


def test_every_link_leads_to_a_file_of_the_export(folder: Path) -> None:
    for page in folder.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        for target in re.findall(r'(?:href|src|action)="([^"#]+)"', html):
            if target.startswith("https://arxiv.org/abs/"):
                continue
            assert not target.startswith("/")
            file = (page.parent / unquote(target.partition("?")[0])).resolve()
            assert file.is_relative_to(folder.resolve())
            assert file.is_file(), f"{page.name}: {target}"


def test_nothing_that_needs_a_server_is_offered(folder: Path) -> None:
    for page in folder.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        assert 'method="post"' not in html
        assert "csrf" not in html
        assert "subscribe" not in html
        assert 'value="votes"' not in html


def test_hostile_titles_are_escaped_in_pages_and_index(folder: Path) -> None:
    for page in folder.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        assert "<script>" not in html
        assert html.count("<script") == 1
    assert "49" not in (folder / "paper" / "1001.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "query", ["Kronecker factors", "sparse pruning", "zeroth-order fine-tuning of models"]
)
def test_the_index_holds_the_servers_weights(query: str) -> None:
    papers = load()
    terms = search_index(papers)["terms"]
    server = WordIndex(papers, replace(WEIGHTS, related=0.0)).scores(query)
    stems = dict.fromkeys(tokens(query))
    weights = {stem: {int(n): score for n, score in terms.get(stem, [])} for stem in stems}
    for paper, score in zip(papers, server, strict=True):
        found = sum(row.get(paper.id, 0.0) for row in weights.values())
        assert found == pytest.approx(score, abs=1e-3)


def test_the_index_knows_the_stem_of_every_word() -> None:
    index = search_index(load())
    assert index["stems"]["optimizers"] == tokens("optimizers")[0]
    assert all(stem in index["terms"] for stem in index["stems"].values())
    assert json.loads(json.dumps(index)) == index


def test_an_earlier_export_is_replaced_and_nothing_else(
    small_library: Library, folder: Path, tmp_path: Path
) -> None:
    (folder / "paper" / "5.html").write_text("old")
    export(library([small_library.by_id[71].paper], []), folder)
    assert {path.name for path in (folder / "paper").iterdir()} == {"71.html"}
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("x")
    with pytest.raises(ExportError, match="not an earlier export"):
        export(small_library, precious)
    assert [path.name for path in precious.iterdir()] == ["thesis.tex"]
    with pytest.raises(ExportError, match="is a file"):
        export(small_library, precious / "thesis.tex")


def test_a_place_that_cannot_be_written_is_named(small_library: Library, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot write to"):
        export(small_library, tmp_path / "file" / "out")


def test_two_exports_are_the_same(small_library: Library, folder: Path, tmp_path: Path) -> None:
    export(small_library, tmp_path / "again")
    for path in folder.rglob("*"):
        if path.is_file():
            twin = tmp_path / "again" / path.relative_to(folder)
            assert path.read_bytes() == twin.read_bytes()

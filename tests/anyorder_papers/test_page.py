"""The generated page of papers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from anyorder_papers import page
from anyorder_papers.catalogue import TOPICS, get, load
from anyorder_papers.errors import PapersError
from anyorder_papers.page import BEGIN, END, counts, main, table, updated

PAGE = Path(__file__).parents[2] / "docs" / "papers.md"


def test_the_page_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == updated(text), "run: python -m anyorder_papers.page docs/papers.md"


def test_every_paper_has_a_row() -> None:
    text = table()
    assert text.startswith("133 papers")
    for paper in load():
        assert text.count(f"\n| {paper.id} | [") == 1


def test_counts_add_up() -> None:
    by = counts(load())
    for name in ("topic", "order", "state"):
        assert sum(by[name].values()) == 133
    assert list(by["topic"]) == list(TOPICS)


def test_titles_cannot_break_the_table() -> None:
    nasty = replace(get(1), title="a | b <script> [x](y) *z*", arxiv="")
    (row,) = [line for line in table([nasty]).splitlines() if line.startswith("| 1 |")]
    assert "a \\| b \\<script> \\[x\\](y) \\*z\\*" in row
    assert row.replace("\\|", "").count("|") == 7


def test_verdicts_are_shown_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "verdict_of", lambda paper: "refuted" if paper.id == 1 else "")
    text = table()
    assert "| Verdict | papers | meaning |" in text
    assert "| refuted | 1 |" in text
    assert "no system (measurement); refuted" in text


def test_only_what_is_between_the_markers_changes() -> None:
    text = f"before\n{BEGIN}\nstale\n{END}\nafter\n"
    new = updated(text)
    assert new.startswith(f"before\n{BEGIN}\n")
    assert new.endswith(f"{END}\nafter\n")
    assert "\nstale\n" not in new
    assert updated(new) == new


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END} {BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_markers_must_be_there(text: str) -> None:
    with pytest.raises(PapersError, match="once each"):
        updated(text)


def test_main_rewrites_a_page(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    main([str(path)])
    assert "| 133 | " in path.read_text(encoding="utf-8")
    with pytest.raises(SystemExit, match="usage"):
        main([])

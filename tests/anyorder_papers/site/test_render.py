"""Links, dates and names on the pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from anyorder_papers.catalogue import Paper
from anyorder_papers.site.render import (
    STATIC,
    Links,
    day,
    environment,
    plural,
    render,
    slug,
    static_version,
    value_name,
)


def test_links_of_the_server_and_of_the_export() -> None:
    served, exported = Links("/p"), Links("../", exported=True)
    assert served.page("") == "/p/"
    assert served.page("paper/7") == "/p/paper/7"
    assert exported.page("") == "../index.html"
    assert exported.page("paper/7") == "../paper/7.html"
    assert exported.static("site.css") == "../static/site.css"
    assert served.static("site.css") == f"/p/static/site.css?v={static_version('site.css')}"
    assert served.figure("x", Path("figure.svg")) == "/p/figures/x.svg"
    assert exported.figure("x", Path("figure.png")) == "../figures/x.png"


def test_dates_say_no_more_than_is_known(make_paper: Callable[..., Paper]) -> None:
    assert day(make_paper(1)) == "1 Jan 2024"
    assert day(make_paper(1, date=None, arxiv="2302.06675")) == "Feb 2023"
    assert day(make_paper(1, date=None)) == ""


def test_names() -> None:
    assert plural(1, "paper") == "1 paper"
    assert plural(0, "paper") == "0 papers"
    assert value_name("0", "order") == "0th order"
    assert value_name("zeroth", "topic") == "Zeroth order and rankings"
    assert value_name("works", "state") == "works"
    assert slug("not at this scale") == "not-at-this-scale"
    assert slug('x" onclick="é') == "x--onclick---"


def test_every_template_escapes_and_knows_its_values() -> None:
    assert environment().autoescape is True
    with pytest.raises(UndefinedError):
        render("home.html", Links())
    for name in environment().list_templates():
        source = (STATIC.parent / "templates" / name).read_text(encoding="utf-8")
        assert "|safe" not in source.replace(" ", "")
        assert "autoescape" not in source


def test_no_page_has_inline_style_or_script_or_foreign_source() -> None:
    for path in (STATIC.parent / "templates").glob("*.html"):
        source = path.read_text(encoding="utf-8")
        assert "style=" not in source
        assert "<style" not in source
        assert " on" + "click" not in source
        assert source.count("<script") == source.count("<script src=")
        assert "//" not in source.replace("https://arxiv.org/abs/", "")
    for name in ("site.css", "site.js"):
        text = (STATIC / name).read_text(encoding="utf-8")
        assert "http" not in text.replace("http.server", "")
        assert "@import" not in text
        assert "innerHTML" not in text

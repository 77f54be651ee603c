"""Links, dates and names on the pages."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from anyorder_papers.catalogue import ORDERS, STATES, TOPICS, Paper
from anyorder_papers.site.entries import load_library, topic_name
from anyorder_papers.site.listing import FILTERS, Query, choices, listing
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
    assert value_name("0", "order") == "zeroth order"
    assert value_name("zeroth", "topic") == "Optimisers without gradients"
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


def test_one_tag_has_one_spelling() -> None:
    """No two tags of the catalogue differ only by case, hyphen, space, plural or a number's form."""
    counts = {"0th": "zeroth", "1st": "first", "2nd": "second"}

    def plain(tag: str) -> str:
        words = re.findall(r"[a-z0-9]+", tag.casefold())
        joined = "".join(counts.get(word, word).removesuffix("s") for word in words)
        return joined.replace("optimiz", "optimis")

    html = render(
        "home.html", Links(), query=Query(), listing=listing(load_library().entries, Query(), None),
        choices={name: choices(load_library().entries, name) for name in FILTERS}, total=0,
        votes={}, mine=(), csrf="", back="", mail=False,
    )  # fmt: skip
    badges = re.findall(r'<span class="badge[^>]*>(.*?)</span>', html)
    options = re.findall(r"<option[^>]*>(.*?) \(\d+\)</option>", html)
    tags = {re.sub(r"<i.*?</i>", "", tag).strip() for tag in badges}
    named = {value_name(value, "order") for value in ORDERS} | {topic_name(t) for t in TOPICS}
    spellings: dict[str, set[str]] = {}
    for tag in tags | set(options) | named | {value_name(value, "state") for value in STATES}:
        spellings.setdefault(plain(tag), set()).add(tag)
    assert {plain(tag) for tag in tags} > {plain("first order"), "reproduced"}
    assert [twice for twice in spellings.values() if len(twice) > 1] == []
    # Nor is one tag the beginning of a longer one that says the same at more length.
    orders = tuple(plain(value_name(value, "order")) for value in ORDERS)
    assert [name for name in map(topic_name, TOPICS) if plain(name).startswith(orders)] == []

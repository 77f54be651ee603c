from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from anyorder_studies.gallery import Entry
from anyorder_studies.gallery_page import gallery_page, inline_svg
from anyorder_studies.verdict import Verdict

SVG = '<?xml?><svg width="9pt" height="9pt" viewBox="0 0 9 9"><style>text{}</style><defs>\
<path id="a b"/><clipPath id="c"/></defs><use xlink:href="#c" clip-path="url(#c)"/></svg>'


def entry(key: str, verdict: str, title: str = "A study") -> Entry:
    return Entry(
        key=key, paper=7, title=title, verdict=verdict, figure=Path("f.svg"), claim="a < b & c",
        claimed="2", measured="1.9", seconds=1.234, command="anyorder study run x", scale="small",
    )  # fmt: skip


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def parse(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(page)
    return parser.found


def test_every_verdict_has_its_filter_and_cards() -> None:
    entries = [entry(f"doe202{i}x", str(verdict)) for i, verdict in enumerate(Verdict)]
    tags = parse(gallery_page([*entries, entry("doe2029y", "refuted")], [SVG] * 5))
    radios = [a for tag, a in tags if tag == "input"]
    assert [a["value"] for a in radios] == ["", *map(str, Verdict)]
    cards = [a["data-verdict"] for tag, a in tags if "data-verdict" in a]
    assert sorted(filter(None, cards)) == sorted([*map(str, Verdict), "refuted"])


def test_a_verdict_without_studies_cannot_be_chosen() -> None:
    page = gallery_page([entry("doe2020x", "partly")], [SVG])
    off = {a["value"] for tag, a in parse(page) if tag == "input" and "disabled" in a}
    assert off == {"reproduced", "not at this scale", "refuted"}
    assert "Partly 1" in page


def test_text_is_escaped() -> None:
    page = gallery_page([entry("doe2020x", "partly", "<script>alert(1)</script>")], [SVG])
    assert "<script>alert" not in page
    assert "a &lt; b &amp; c" in page


def test_nothing_is_asked_of_any_server() -> None:
    page = gallery_page([entry("doe2020x", "partly")], [SVG])
    for tag, attributes in parse(page):
        for name in ("src", "href", "action", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith("#"), (tag, name, value)
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_figures_do_not_share_identifiers() -> None:
    page = gallery_page([entry("doe2020x", "partly"), entry("doe2021y", "refuted")], [SVG, SVG])
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))


def test_inlined_figures_keep_their_references() -> None:
    svg = inline_svg(SVG, "key")
    assert 'id="key-c"' in svg
    assert 'xlink:href="#key-c"' in svg
    assert "url(#key-c)" in svg
    assert "<style" not in svg
    head = svg.split(">", 1)[0]
    assert "width" not in head
    assert 'viewBox="0 0 9 9"' in head


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_filter_works_in_a_browser(browser: Any, tmp_path: Path, scheme: str) -> None:
    entries = [entry("doe2020x", "partly"), entry("doe2021y", "refuted")]
    (tmp_path / "index.html").write_text(gallery_page(entries, [SVG, SVG]))
    page = browser.new_page(color_scheme=scheme)
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto((tmp_path / "index.html").as_uri())
    assert page.locator(".card:visible").count() == 2
    page.get_by_role("radio", name="Refuted 1").check()
    assert page.locator(".card:visible").count() == 1
    assert page.locator("#state").inner_text() == "1 study shown"
    page.get_by_role("button", name="Enlarge the figure").click()
    assert page.locator("dialog svg").is_visible()
    page.keyboard.press("Escape")
    page.locator("dialog svg").wait_for(state="detached")
    assert page.locator(".card svg").count() == 2
    page.reload()
    assert page.locator(".card:visible").count() == 1, "the address keeps the filter"
    page.get_by_role("radio", name="Refuted 1").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator(".card:visible").count() == 1
    assert page.locator(".card:visible .badge").inner_text() == "partly"
    page.close()
    assert problems == []
    assert all(url.startswith("file:") for url in requests)

"""The site in a real browser: search, filter, vote, subscribe, confirm, leave; and the export."""

from __future__ import annotations

import http.server
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from anyorder_papers import votes
from anyorder_papers.catalogue import load
from anyorder_papers.database import Database
from anyorder_papers.digest import send_due
from anyorder_papers.search import search
from anyorder_papers.site.app import create_app
from anyorder_papers.site.entries import Library, library
from anyorder_papers.site.export import export
from anyorder_papers.site.listing import Query, select
from anyorder_papers.site.settings import Settings

if TYPE_CHECKING:
    from conftest import Sink

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page of a fresh visitor; any error or request to elsewhere fails the test."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    page.on(
        "request",
        lambda request: None if "//127.0.0.1:" in request.url else wrong.append(request.url),
    )
    yield page
    context.close()
    assert wrong == []


@pytest.fixture
def address(small_library: Library, database: Database, sink: Sink) -> Iterator[str]:
    # It listens from here on: who comes before the server is there waits in its queue.
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    app = create_app(small_library, database, Settings(url, b"s" * 32, sink.settings), search)
    server = uvicorn.Server(uvicorn.Config(app, access_log=False, log_config=None))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield url
    server.should_exit = True
    thread.join()


def shown(page: Any) -> list[int]:
    return [int(card.get_attribute("data-id")) for card in page.locator(".card:visible").all()]


def test_a_visit(
    page: Any, address: str, database: Database, sink: Sink, small_library: Library
) -> None:
    from playwright.sync_api import expect

    page.goto(address)
    expect(page.locator("#found")).to_have_text("5 papers")

    # Search while typing, then filter, then back to everything.
    page.get_by_label("Search by meaning").fill("little memory")
    expect(page.locator(".card h3").first).to_have_text("Tuning with little memory")
    page.wait_for_url(re.compile("q=little"))
    page.get_by_role("link", name="Show all").click()
    page.get_by_label("Verdict").select_option("refuted")
    expect(page.locator("#found")).to_have_text("1 paper")
    assert shown(page) == [100]
    page.get_by_role("link", name="Show all").click()
    expect(page.locator("#found")).to_have_text("5 papers")

    # Vote by keyboard, twice; then from the paper's own page.
    button = page.get_by_role("button", name="Upvote Tuning with little memory")
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(button.locator(".count")).to_have_text("1")
    expect(button).to_be_focused()
    page.keyboard.press("Space")
    expect(button).to_have_attribute("aria-pressed", "false")
    page.get_by_role("link", name="Tuning with little memory").click()
    page.get_by_role("button", name="Upvote").click()
    expect(page.get_by_role("button", name="Upvote")).to_have_attribute("aria-pressed", "true")
    assert votes.counts(database) == {12: 1}

    # Subscribe, confirm, get a digest, leave.
    page.get_by_role("link", name="Digest").click()
    page.get_by_label("E-mail address").fill("reader@example.org")
    page.get_by_label("At most once a day").check()
    page.get_by_role("button", name="Send me a confirmation").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Check your mailbox")
    sink.wait_for(1)
    page.goto(linked(sink, 0, "confirm"))
    page.get_by_role("button", name="Start the digest").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("You are subscribed")

    grown = library([*small_library.papers, load()[70]], [])
    now = int(time.time())
    settings = sink.settings
    assert send_due(database, grown.announced(), settings, address, lambda: now).sent == 0
    fresh = library([*small_library.papers, load()[70], load()[0]], [])
    assert send_due(database, fresh.announced(), settings, address, lambda: now).sent == 1
    page.goto(linked(sink, 1, "unsubscribe"))
    page.get_by_role("button", name="Unsubscribe").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("You are unsubscribed")
    assert send_due(database, grown.announced(), settings, address, lambda: now).sent == 0


@pytest.fixture
def exported(
    small_library: Library, tmp_path: Path, files: Callable[[Path], str]
) -> Iterator[str]:
    export(small_library, tmp_path / "exported")
    yield f"{files(tmp_path / 'exported')}/index.html"


@pytest.mark.parametrize("kind", ["address", "exported"])
def test_back_leads_to_the_search_before(
    page: Any, kind: str, request: pytest.FixtureRequest
) -> None:
    from playwright.sync_api import expect

    start = request.getfixturevalue(kind)
    found, box = page.locator("#found"), page.get_by_label("Search by meaning")
    page.goto(start)
    box.press_sequentially("little", delay=1)
    page.wait_for_url(re.compile("q=little$"))
    box.press_sequentially(" memory", delay=1)  # one search, typed with a pause
    page.wait_for_url(re.compile("q=little\\+memory$"))
    expect(page.locator(".card:visible h3").first).to_have_text("Tuning with little memory")
    page.get_by_label("Order").select_option("1")
    expect(found).to_have_text("0 papers")
    page.get_by_label("Order").select_option("0")
    expect(found).to_have_text("1 paper")
    page.get_by_role("link", name="Tuning with little memory").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Tuning with little memory")

    page.go_back()
    expect(found).to_have_text("1 paper")
    expect(box).to_have_value("little memory")
    expect(page.get_by_label("Order")).to_have_value("0")
    page.go_back()
    expect(found).to_have_text("0 papers")
    expect(page.get_by_label("Order")).to_have_value("1")
    page.go_back()
    expect(page.get_by_label("Order")).to_have_value("")
    expect(page.locator(".card:visible h3").first).to_have_text("Tuning with little memory")
    page.go_back()
    expect(box).to_have_value("")
    expect(found).to_have_text("5 papers")
    page.go_forward()
    expect(box).to_have_value("little memory")
    expect(page.locator(".card:visible h3").first).to_have_text("Tuning with little memory")


@pytest.mark.parametrize("kind", ["address", "exported"])
def test_an_address_opens_its_search_and_no_other(
    page: Any, kind: str, request: pytest.FixtureRequest
) -> None:
    from playwright.sync_api import expect

    page.goto(f"{request.getfixturevalue(kind)}?q=little+memory&order=0&sort=nonsense")
    expect(page.locator("#found")).to_have_text("1 paper")
    expect(page.get_by_label("Search by meaning")).to_have_value("little memory")
    expect(page.get_by_label("Order")).to_have_value("0")
    expect(page.get_by_label("Sort")).to_have_value("")


@pytest.mark.parametrize("kind", ["address", "exported"])
def test_papers_are_found_by_their_date(
    page: Any, kind: str, request: pytest.FixtureRequest
) -> None:
    from playwright.sync_api import expect

    page.goto(request.getfixturevalue(kind))
    page.get_by_role("link", name="Dates").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Papers by date")
    page.get_by_role("navigation", name="Years").get_by_role("link", name="2025").click()
    expect(page.get_by_role("heading", name="2025")).to_be_in_viewport()
    page.get_by_role("link", name="Tuning with little memory").click()
    expect(page.locator(".abstract")).to_have_text(re.compile("Two forward passes"))
    page.get_by_role("link", name="16 Mar 2025").first.click()
    page.wait_for_url(re.compile("#2025-03$"))
    page.get_by_role("link", name="A review").click()
    page.get_by_role("navigation", name="By date").get_by_role("link").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Tuning with little memory")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def linked(sink: Sink, place: int, action: str) -> str:
    body = sink.letters[place].get_body(("plain",))
    assert body is not None
    found = re.search(rf"http://\S+/{action}/\S+", body.get_content())
    assert found is not None
    return found[0]


def test_hostile_titles_run_nothing_and_nothing_is_wider_than_the_page(
    page: Any, address: str
) -> None:
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    papers = ("/paper/1001", "/paper/12", "/paper/71", "/study/malladi2023mezo")
    for path in ("/", "/dates", "/gallery", "/subscribe", "/confirm/x", *papers):
        page.goto(address + path)
        for width in (390, 360, 320):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    page.goto(f"{address}/paper/71")
    # The figure is drawn, under the policy that lets it do nothing else.
    image = page.locator("figure img")
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_reading_needs_no_script(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    page.get_by_label("Search by meaning").fill("little memory")
    page.get_by_role("button", name="Apply").click()
    assert page.locator(".card h3").first.text_content() == "Tuning with little memory"
    page.get_by_role("button", name="Upvote Tuning with little memory").click()
    assert "q=little" in page.url
    assert page.locator(".card .count").first.text_content() == "1"
    context.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def files() -> Iterator[Callable[[Path], str]]:
    servers: list[http.server.ThreadingHTTPServer] = []

    def serve(folder: Path) -> str:
        handler = partial(Quiet, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_export_searches_and_filters_by_itself(
    page: Any, small_library: Library, tmp_path: Path, files: Callable[[Path], str]
) -> None:
    from playwright.sync_api import expect

    export(small_library, tmp_path / "out")
    page.goto(f"{files(tmp_path / 'out')}/index.html")
    assert shown(page) == [12, 104, 1001, 71, 100]
    page.get_by_label("Order").select_option("0")
    expect(page.locator("#found")).to_have_text("1 paper")
    assert shown(page) == [12]
    page.get_by_role("link", name="Show all").click()
    page.get_by_label("Sort").select_option("title")
    expect(page.locator(".card h3").nth(1)).to_have_text("A review")
    page.get_by_label("Sort").select_option("")
    assert shown(page) == [12, 104, 1001, 71, 100]
    page.goto(re.sub("index.html.*", "gallery.html?verdict=refuted", page.url))
    assert page.locator("#gallery > li:visible").count() == 1
    page.locator("#pills a").first.click()
    assert page.locator("#gallery > li:visible").count() == 3
    page.go_back()
    expect(page.locator("#gallery > li:visible")).to_have_count(1)
    page.go_forward()
    expect(page.locator("#gallery > li:visible")).to_have_count(3)


QUERIES = [
    "fine-tune with little memory",
    "Bayesian optimisation of hyperparameters",
    "pruning large language models",
    "optimizers that use curvature",
    "zeroth-order",
    "rank candidates by a human",
]


def test_the_export_finds_what_the_server_finds(
    page: Any, tmp_path: Path, files: Callable[[Path], str]
) -> None:
    everything = library(load(), [])
    export(everything, tmp_path / "out")
    address = files(tmp_path / "out")
    for query in QUERIES:
        page.goto(f"{address}/index.html?q={query.replace(' ', '+')}")
        sync_api.expect(page.locator("#clear")).to_be_visible()
        first = shown(page)[:5]
        server = select(everything, Query(q=query), {}, search)[:5]
        assert first == [entry.paper.id for entry in server], query

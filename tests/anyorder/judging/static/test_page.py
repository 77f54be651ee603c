"""The page in a real browser: dragging, keys, two tabs, a restart, widths, both colour schemes."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from anyorder.judging import Sound, load_task
from anyorder.judging.page import create_app
from anyorder.judging.session import Session
from anyorder.judging.task import Task

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
EXAMPLES = Path(__file__).parents[4] / "docs/examples/rank"


@contextmanager
def served(session: Session, port: int = 0) -> Iterator[str]:
    # It listens from here on: who comes before the server is there waits in its queue.
    listening = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(
        uvicorn.Config(create_app(session), log_config=None, timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join()
    listening.close()


def text(given: dict[str, Any]) -> str:
    return f"x = {given['x']:.4f}"


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    session = Session(tmp_path / "s", Task("texts", {"x": 1.0}, text), {"questions": 3})
    yield session
    session.close()


@pytest.fixture
def address(session: Session) -> Iterator[str]:
    with served(session) as address:
        yield address


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages in one context; errors, and requests to elsewhere, fail the test."""
    wrong: list[str] = []
    contexts: list[Any] = []

    def new(**options: Any) -> Any:
        options = {"viewport": {"width": 1280, "height": 900}, **options}
        contexts.append(browser.new_context(**options))
        contexts[-1].on("weberror", lambda error: wrong.append(str(error.error)))
        contexts[-1].on(
            "request",
            lambda r: None if "//127.0.0.1:" in r.url else wrong.append(r.url),
        )
        return contexts[-1]

    yield new
    for context in contexts:
        context.close()
    assert wrong == []


def visit(page: Any, address: str, count: int = 4) -> None:
    """Open the page and wait for its candidates: keys do nothing before."""
    page.goto(address)
    expect(page.locator(".cards .card")).to_have_count(count)


def order_of(page: Any) -> list[int]:
    """Numbers of the placed candidates, best first."""
    return [1 + int(c.get_attribute("data-place")) for c in page.locator("#order .card").all()]


def drag(page: Any, number: int, target: Any, *, right: bool = True) -> None:
    box = page.locator(f'.card[data-place="{number - 1}"] .show').bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    to = target.bounding_box()
    x = to["x"] + to["width"] * (0.9 if right else 0.1)
    page.mouse.move(x, to["y"] + to["height"] / 2, steps=4)
    page.mouse.up()


def test_candidates_are_dragged_into_order(opened: Any, session: Session, address: str) -> None:
    page = opened().new_page()
    visit(page, address)
    zone = page.locator(".zone.chosen")
    expect(page.locator("#pool .card")).to_have_count(4)
    expect(page.locator("#send")).to_be_disabled()
    drag(page, 3, zone)
    drag(page, 1, zone)
    assert order_of(page) == [3, 1]
    drag(page, 4, page.locator("#order .card").first, right=False)  # before the first
    assert order_of(page) == [4, 3, 1]
    drag(page, 1, page.locator("#order .card").nth(1), right=False)  # within the order
    assert order_of(page) == [4, 1, 3]
    drag(page, 3, page.locator("#pool"))  # out again
    assert order_of(page) == [4, 1]
    drag(page, 3, zone)
    drag(page, 2, zone)
    expect(page.locator("#message")).to_contain_text("All are placed")
    places = session.question.places
    page.get_by_role("button", name="Submit order").click()
    expect(page.locator("#count")).to_have_text("Question 2 of 3")
    assert session.answers == [[[places[n - 1]] for n in (4, 1, 3, 2)]]
    # The second question asks for the best alone: another choice takes its place.
    expect(page.locator("#order-title")).to_have_text("Your choice")
    drag(page, 2, zone)
    drag(page, 4, zone)
    assert order_of(page) == [4]


def test_a_dropped_drag_changes_nothing(opened: Any, session: Session, address: str) -> None:
    page = opened().new_page()
    visit(page, address)
    box = page.locator("#pool .show").first.bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 40, box["y"] - 60, steps=3)
    expect(page.locator(".slot")).to_have_count(1)
    page.keyboard.press("Escape")
    page.mouse.up()
    assert order_of(page) == [] and page.locator(".slot, .dragging").count() == 0


def test_keys_alone_answer_everything(opened: Any, session: Session, address: str) -> None:
    page = opened().new_page()
    visit(page, address)
    first = session.question.places
    for key in "2341":
        page.keyboard.press(key)
    page.keyboard.press("Backspace")  # 1 is out
    page.keyboard.press("2")  # 2 is out
    page.keyboard.press("2")
    page.keyboard.press("=")  # ties with 4
    assert order_of(page) == [3, 4, 2]
    expect(page.locator(".rank")).to_have_text(["1", "= 2", "= 2"])
    page.keyboard.press("7")  # there is no such candidate
    expect(page.get_by_role("button", name="Submit 3 of 4")).to_be_enabled()
    page.keyboard.press("Enter")
    expect(page.locator("#count")).to_have_text("Question 2 of 3")
    expect(page.locator("#message")).to_have_text("Answer 1 is stored.")
    assert session.answers == [[[first[2]], sorted([first[3], first[1]])]]
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    expect(page.locator("#count")).to_have_text("Question 3 of 3")
    page.keyboard.press("u")
    expect(page.locator("#message")).to_have_text(re.compile("Answer 2 is undone"))
    assert len(session.answers) == 1
    for _ in range(2):
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        expect(page.locator("#order .card")).to_have_count(0)
    # All are answered: the result, more of them, or back.
    expect(page.get_by_role("heading", name="All questions are answered")).to_be_visible()
    expect(page.locator("#file")).to_have_text(str(session.folder / "best.json"))
    with page.expect_download() as download:
        page.get_by_role("link", name="Save best.json").click()
    assert Path(download.value.path()).read_text() == (session.folder / "best.json").read_text()
    page.get_by_role("button", name="20 more questions").click()
    expect(page.locator("#count")).to_have_text("Question 4 of 23")
    page.get_by_text("Keys", exact=True).click()
    page.get_by_label("Use these keys").uncheck()
    page.locator("h1").click()
    page.keyboard.press("1")
    assert order_of(page) == []


def test_a_screen_reader_hears_what_happens(opened: Any, session: Session, address: str) -> None:
    """Every control has a name, what changes is said, and the focus stays where it was."""
    page = opened().new_page()
    visit(page, address)
    button = page.get_by_role("button", name="Place Candidate 2")
    button.focus()
    page.keyboard.press("Enter")
    said = page.get_by_role("status")
    expect(said).to_have_text("Candidate 2 is number 1. 3 to place.")
    expect(page.get_by_role("button", name="Take out Candidate 2")).to_be_focused()
    page.get_by_role("button", name="Place Candidate 4").press("Space")
    page.get_by_role("button", name="Move Candidate 4 up").press("Enter")
    expect(said).to_have_text("Candidate 4 is number 1. 2 to place.")
    assert order_of(page) == [4, 2]
    page.get_by_role("button", name="Candidate 2 ties with the one before, or not").press("Enter")
    expect(said).to_have_text("Candidate 2 ties with Candidate 4. 2 to place.")
    page.get_by_role("button", name="Move Candidate 4 down").press("Enter")  # leaves the tie
    assert order_of(page) == [2, 4]
    expect(page.locator(".rank")).to_have_text(["1", "2"])
    for control in page.locator("button:visible, summary, input:visible, progress").all():
        assert control.evaluate(
            "e => (e.getAttribute('aria-label') || e.textContent || e.labels?.[0]?.textContent || "
            "document.getElementById(e.getAttribute('aria-labelledby'))?.textContent || '').trim()"
        ), control.evaluate("e => e.outerHTML")
    assert page.locator("html").get_attribute("lang") == "en"
    expect(page.get_by_role("heading", level=1)).to_have_text("Which do you like best?")


def test_two_tabs_and_an_answer_that_is_sent_twice(
    opened: Any, session: Session, address: str
) -> None:
    context = opened()
    one, other = context.new_page(), context.new_page()
    for page in (one, other):
        visit(page, address)
    one.keyboard.press("1")
    other.keyboard.press("2")
    one.get_by_role("button", name="Submit").click()
    expect(one.locator("#count")).to_have_text("Question 2 of 3")
    other.get_by_role("button", name="Submit").click()
    expect(other.locator("#message")).to_contain_text("That question is not open any more")
    expect(other.locator("#count")).to_have_text("Question 2 of 3")
    assert len(session.answers) == 1
    other.keyboard.press("1")
    other.get_by_role("button", name="Submit").dblclick()
    expect(other.locator("#count")).to_have_text("Question 3 of 3")
    assert len(session.answers) == 2
    one.evaluate("window.dispatchEvent(new Event('focus'))")  # as when its tab comes to the front
    expect(one.locator("#message")).to_contain_text("went on in another tab")
    expect(one.locator("#count")).to_have_text("Question 3 of 3")


def test_a_closed_page_keeps_the_order_that_was_not_submitted(
    opened: Any, session: Session, address: str
) -> None:
    context = opened()
    page = context.new_page()
    visit(page, address)
    page.keyboard.press("3")
    page.keyboard.press("1")
    page.close()
    page = context.new_page()
    visit(page, address)
    expect(page.locator("#message")).to_have_text("Your unfinished order is back.")
    assert order_of(page) == [3, 1]
    page.get_by_role("button", name="No difference").click()
    expect(page.locator("#count")).to_have_text("Question 2 of 3")
    assert session.answers == [[[0, 1, 2, 3]]] and order_of(page) == []


def test_a_server_that_ends_and_comes_back(opened: Any, tmp_path: Path) -> None:
    def session() -> Session:
        return Session(tmp_path / "s", Task("texts", {"x": 1.0}, text), {})

    page = opened().new_page()
    first = session()
    with served(first) as address:
        visit(page, address)
        page.keyboard.press("4")
        page.keyboard.press("2")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("#message")).to_contain_text("The server does not answer")
    first.close()
    assert first.answers == []
    again = session()
    with served(again, int(address.rsplit(":", 1)[1].strip("/"))):
        expect(page.locator("#message")).to_have_text("The server is back; nothing was lost.")
        assert order_of(page) == [4, 2]
        page.get_by_role("button", name="Submit").click()
        expect(page.locator("#count")).to_have_text("Question 2 of 20")
        assert len(again.answers) == 1
    again.close()


def test_a_candidate_that_cannot_be_drawn_is_told(opened: Any, tmp_path: Path) -> None:
    session = Session(tmp_path / "s", Task("t", {"x": 1.0}, lambda _: 1 / 0), {})
    page = opened().new_page()
    with served(session) as address:
        page.goto(address)
        expect(page.locator("#message")).to_contain_text("division by zero")
        expect(page.locator("#message")).to_contain_text("nothing is lost")
    session.close()


KINDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "image": load_task(str(EXAMPLES / "flower.py")).render,
    "text": lambda given: "<script>alert(1)</script> " + "word " * 30 + "x" * 60,
    "numbers": lambda given: {"a long name of a number " * 2: 1e-300, "b": 2},
    "sound": lambda given: Sound([0.0] * 100, rate=8000),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_fits_every_width(opened: Any, tmp_path: Path, kind: str) -> None:
    parameters = load_task(str(EXAMPLES / "flower.py")).parameters
    session = Session(tmp_path / "s", Task(kind, parameters, KINDS[kind]), {"points": 10})
    page = opened(has_touch=True).new_page()
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    with served(session) as address:
        visit(page, address, 10)
        page.keyboard.press("0")
        page.get_by_role("button", name="Place Candidate 1", exact=True).tap()
        assert order_of(page) == [10, 1]
        if kind != "image":  # nothing of a text is hidden
            rank = page.locator("#order .rank").first.bounding_box()
            content = page.locator("#order .show").first.bounding_box()
            assert rank["y"] + rank["height"] <= content["y"]
        page.get_by_text("Best so far").click()
        expect(page.locator("#best-shown .show")).to_be_visible()
        if kind == "image":
            for image in page.locator("img").all():
                assert image.evaluate("e => e.decode().then(() => e.naturalWidth)") > 0
        for width, scheme, ground in (
            (1280, "light", "rgb(247, 246, 243)"),
            (390, "dark", "rgb(17, 19, 25)"),
            (320, "light", "rgb(247, 246, 243)"),
        ):
            page.set_viewport_size({"width": width, "height": 844})
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ground
            expect(page.get_by_role("button", name="Submit 2 of 10")).to_be_in_viewport()
    session.close()


def test_a_finger_drags_the_handle(opened: Any, session: Session, address: str) -> None:
    page = opened(viewport={"width": 390, "height": 844}, has_touch=True).new_page()
    visit(page, address)
    handle = page.locator('.card[data-place="1"] .handle').bounding_box()
    zone = page.locator(".zone.chosen").bounding_box()
    touch = page.context.new_cdp_session(page)
    start = {"x": handle["x"] + 8, "y": handle["y"] + 8}
    end = {"x": zone["x"] + 50, "y": zone["y"] + 20}
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [start]})
    for share in (0.3, 0.7, 1.0):
        point = {axis: start[axis] + share * (end[axis] - start[axis]) for axis in start}
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect(page.locator("#message")).to_have_text("Candidate 2 is number 1. 3 to place.")
    assert order_of(page) == [2]


def test_a_person_finds_a_flower(opened: Any, tmp_path: Path) -> None:
    """The example of the documentation, answered through the page by keys alone."""
    task = load_task(str(EXAMPLES / "flower.py"))
    liked = {"hue": 0.9, "petals": 0.8}

    def distance(point: dict[str, Any]) -> float:
        return sum(abs(float(point[name]) - wanted) for name, wanted in liked.items())

    session = Session(tmp_path / "s", task, {"questions": 12})
    before = distance(dict(task.parameters))
    page = opened().new_page()
    with served(session) as address:
        visit(page, address)
        for number in range(1, 13):
            expect(page.locator("#count")).to_have_text(f"Question {number} of 12")
            expect(page.locator("#order .card")).to_have_count(0)
            # Of a twin: the server's own may be showing a point just now.
            points = session._replayed(session.answers).candidates()
            places = session.question.places
            shown = sorted(range(len(places)), key=lambda i: distance(points[places[i]]))
            for place in shown if session.question.part == "order" else shown[:1]:
                page.keyboard.press(str(place + 1))
            page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="All questions are answered")).to_be_visible()
    after = distance({n: p.detach() for n, p in session._optimizer.named_params().items()})
    assert after < 0.7 * before
    session.close()

"""The served site: what it shows, and what it withstands."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from hashlib import sha256
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from anyorder_papers import votes
from anyorder_papers.database import Database, DatabaseError, subscribers, tokens, vote_networks
from anyorder_papers.site.app import MAX_BODY
from anyorder_papers.subscriptions import CONFIRM_SECONDS, PAUSE_SECONDS

if TYPE_CHECKING:
    from conftest import Clock, Sink

Open = Callable[..., TestClient]
FORM = "application/x-www-form-urlencoded"


class Tags(HTMLParser):
    """All start tags of a page, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def csrf(client: TestClient, path: str = "/") -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]+)"', client.get(path).text)
    assert found is not None
    return found[1]


def cards(html: str) -> list[int]:
    return [int(number) for number in re.findall(r'<article class="card" data-id="(\d+)"', html)]


PAGES = ["/", "/dates", "/study/malladi2023mezo", "/paper/12", "/paper/71", "/paper/100", "/paper/104", "/paper/1001", "/gallery", "/subscribe"]
PAGES += ["/confirm/x", "/unsubscribe/x", "/nowhere"]


# -- what it shows ---------------------------------------------------------------------------------


def test_the_list_shows_title_date_authors_and_badges(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert cards(page.text) == [12, 104, 1001, 71, 100]
    text = " ".join(Tags(page.text).text.split())
    for part in ("13 Feb 2023 · 3 authors", "reproduced", "12 s to run", "zeroth order", "5 papers"):
        assert part in text


def test_search_filters_and_order_work_by_address_alone(client: TestClient) -> None:
    assert cards(client.get("/?q=little+memory").text)[0] == 12
    assert cards(client.get("/?topic=zeroth").text) == [12]
    assert cards(client.get("/?verdict=refuted").text) == [100]
    assert cards(client.get("/?state=no+system&sort=title").text) == [104]
    empty = client.get("/?q=xyzzy")
    assert cards(empty.text) == []
    assert 'id="empty">' in empty.text
    chosen = Tags(client.get("/?order=0").text)
    assert {"value": "0", "selected": None} in chosen.named("option")


def test_a_paper_shows_claim_measurement_figure_command_import_and_maths(
    client: TestClient,
) -> None:
    page = client.get("/paper/71").text
    text = " ".join(Tags(page).text.split())
    for part in (
        "The loss is lower.",
        "0.8 (effect: < 1)",
        "0.83 [0.79, 0.88]",
        "table 2",
        "anyorder study run chen2023lion --scale small",
        "import anyorder_papers.site.maths",
        "arXiv 2302.06675",
        "one GPU for two hours",
    ):
        assert part in text
    assert "/figures/chen2023lion.svg" in page
    figure = client.get("/figures/chen2023lion.svg")
    assert figure.status_code == 200
    assert figure.headers["content-type"] == "image/svg+xml"


def test_papers_without_result_code_or_system_say_so(client: TestClient) -> None:
    def text(path: str) -> str:
        return " ".join(Tags(client.get(path).text).text.split())

    assert "anyorder study run wang2025zo2" in text("/paper/12")
    assert "Planned, not implemented yet" in text("/paper/12")
    assert "this paper is a review" in text("/paper/104")
    assert "No study measures this paper's claim yet" in text("/paper/1001")


def test_maths_of_a_method_is_mathml(open_site: Open, small_library: Any) -> None:
    pytest.importorskip("torch")
    from dataclasses import replace

    from anyorder_papers.site.entries import Entry

    paper = replace(small_library.by_id[71].paper, module="anyorder.methods.lion")
    small_library.by_id[71] = Entry(paper, small_library.by_id[71].studies)
    assert '<math display="block">' in open_site().get("/paper/71").text


def test_the_gallery_shows_every_result_and_filters(client: TestClient) -> None:
    everything = client.get("/gallery").text
    assert "Lion against AdamW" in everything
    assert "Order in sets" in everything
    assert "no figure" in everything
    refuted = client.get("/gallery?verdict=refuted").text
    assert "Order in sets" in refuted
    assert "Lion against AdamW" not in refuted
    assert "Lion against AdamW" in client.get("/gallery?verdict=%3Cscript%3E").text


def test_the_site_may_live_below_a_path(open_site: Open) -> None:
    client = open_site("http://testserver/p")
    page = client.get("/p/")
    assert page.status_code == 200
    links = [a["href"] for a in Tags(page.text).named("a")]
    assert all(link is not None and link.startswith(("/p/", "#")) for link in links)
    assert client.get("/p/paper/71").status_code == 200
    assert client.get("/").status_code == 404


@pytest.mark.parametrize("path", PAGES)
def test_pages_can_be_used_by_everyone(client: TestClient, path: str) -> None:
    html = client.get(path).text
    page = Tags(html)
    assert page.named("html")[0]["lang"] == "en"
    assert len(page.named("h1")) == 1
    assert page.named("title")
    assert "width=device-width" in html
    assert all("alt" in image for image in page.named("img"))
    labels = {label.get("for") for label in page.named("label")}
    for field in page.named("input") + page.named("select"):
        wrapped = field.get("type") in ("hidden", "radio")
        assert wrapped or field["id"] in labels
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert page.named("a")[0]["href"] == "#main"


# -- headers, escaping, no third parties -----------------------------------------------------------


@pytest.mark.parametrize("path", [*PAGES, "/static/site.css", "/static/none.css", "/figures/x.svg"])
def test_every_answer_carries_the_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in policy


def test_a_figure_may_run_nothing(client: TestClient) -> None:
    policy = client.get("/figures/chen2023lion.svg").headers["content-security-policy"]
    assert "script-src" not in policy
    assert "default-src 'none'" in policy
    assert "sandbox" in policy


@pytest.mark.parametrize("path", ["/", "/paper/1001", "/?q=%3Cscript%3Ealert(1)%3C/script%3E"])
def test_hostile_texts_stay_texts(client: TestClient, path: str) -> None:
    html = client.get(path).text
    page = Tags(html)
    assert [script.get("src", "")[:16] for script in page.named("script")] == ["/static/site.js?"]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert all((image["src"] or "").startswith("/figures/") for image in page.named("img"))
    assert "49" not in page.text.replace("2049", "")
    if "q=" in path:
        field = next(field for field in page.named("input") if field.get("id") == "q")
        assert field["value"] == "<script>alert(1)</script>"
    else:
        assert "<script>alert('x')</script>" in page.text


@pytest.mark.parametrize("path", PAGES)
def test_no_page_asks_a_third_party(client: TestClient, path: str) -> None:
    for tag, attributes in Tags(client.get(path).text).tags:
        for name in ("src", "href", "action", "srcset", "data", "poster"):
            value = attributes.get(name) or ""
            if "//" in value:
                assert tag == "a"
                assert value.startswith("https://arxiv.org/abs/")
                assert "noreferrer" in (attributes["rel"] or "")


def test_only_known_files_are_served(client: TestClient) -> None:
    for path in (
        "/static/..%2f..%2fapp.py",
        "/static/../app.py",
        "/static/%2e%2e",
        "/static/site.py",
        "/figures/..%2f..%2fetc%2fpasswd",
        "/figures/chen2023lion.png",
        "/figures/chen2023lion",
        "/figures/vinyals2015sets.svg",
    ):
        assert client.get(path).status_code == 404


def test_the_host_header_is_never_repeated(client: TestClient) -> None:
    for path in (*PAGES, "/gallery/", "/paper/71/"):
        answer = client.get(path, headers={"host": "evil.example", "x-forwarded-host": "e.example"})
        assert "evil.example" not in answer.text + str(answer.headers)
        assert "e.example" not in answer.text
    assert client.get("/gallery/").status_code == 404


# -- votes -----------------------------------------------------------------------------------------


def vote(client: TestClient, number: int = 71, **changes: Any) -> Any:
    data = {"csrf": csrf(client), "back": "/?topic=first", **changes.pop("data", {})}
    return client.post(f"/vote/{number}", data=data, **changes)


def test_a_vote_is_given_and_taken_back(client: TestClient, database: Database) -> None:
    answer = vote(client)
    assert (answer.status_code, answer.headers["location"]) == (303, "/?topic=first")
    assert votes.counts(database) == {71: 1}
    assert 'aria-pressed="true"' in client.get("/paper/71").text
    vote(client)
    assert votes.counts(database) == {}
    assert 'aria-pressed="true"' not in client.get("/paper/71").text


def test_a_script_gets_the_new_count(client: TestClient) -> None:
    answer = vote(client, headers={"accept": "application/json"})
    assert answer.json() == {"votes": 1, "voted": True}


def test_visitors_from_two_networks_have_a_vote_each(open_site: Open, database: Database) -> None:
    vote(open_site(address="192.0.2.1"))
    vote(open_site(address="192.0.2.2"))
    assert votes.counts(database) == {71: 2}


def stuff(client: TestClient, number: int = 71) -> list[int]:
    """Vote twenty times, with the cookie thrown away before each time."""
    answers: list[int] = []
    for _ in range(20):
        client.cookies.clear()
        answers.append(vote(client, number).status_code)
    return answers


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "testclient"])
def test_one_address_has_one_vote_a_paper_however_many_cookies(
    open_site: Open, database: Database, address: str
) -> None:
    client = open_site(address=address)
    assert stuff(client) == [303] + [409] * 19
    assert votes.counts(database) == {71: 1}
    # The same after a start of the server, which forgets its rate limits, and for another paper.
    assert set(stuff(open_site(address=address))) == {409}
    stuff(open_site(address=address), 12)
    assert votes.counts(database) == {71: 1, 12: 1}


def test_addresses_of_one_ipv6_network_are_one(open_site: Open, database: Database) -> None:
    for host in ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"):
        vote(open_site(address=host))
    assert votes.counts(database) == {71: 2}


def test_who_shares_an_address_is_told_and_changes_nothing(
    open_site: Open, database: Database
) -> None:
    first, second = open_site(address="192.0.2.1"), open_site(address="192.0.2.1")
    vote(first)
    refused = vote(second)
    assert refused.status_code == 409
    assert "All users of a network share one vote" in refused.text
    assert vote(second, headers={"accept": "application/json"}).json() == {"status": 409}
    assert 'aria-pressed="true"' not in second.get("/paper/71").text
    vote(first)  # takes it back, and the network is free again
    assert vote(second).status_code == 303
    assert votes.counts(database) == {71: 1}


def test_a_vote_can_be_taken_back_from_anywhere(open_site: Open, database: Database) -> None:
    home, cafe = open_site(address="192.0.2.1"), open_site(address="192.0.2.2")
    vote(home)
    cafe.cookies = home.cookies
    vote(cafe)
    assert votes.counts(database) == {}
    vote(cafe)
    assert stuff(open_site(address="192.0.2.1")).count(303) == 1
    assert votes.counts(database) == {71: 2}


def test_the_database_holds_no_address(open_site: Open, database: Database) -> None:
    client = open_site(address="192.0.2.1")
    vote(client, 71)
    vote(client, 12)
    with database.read() as connection:
        kept = connection.scalars(sa.select(vote_networks.c.network)).all()
    assert len(set(kept)) == 2  # nothing says that both came from one network
    plain = {sha256(text.encode()).hexdigest() for text in ("192.0.2.1", "71:192.0.2.1")}
    assert not plain & set(kept)
    assert all(re.fullmatch("[0-9a-f]{64}", network) for network in kept)


def test_a_vote_needs_the_visitors_own_token(client: TestClient, database: Database) -> None:
    own = csrf(client)
    assert client.post("/vote/71", data={"csrf": ""}).status_code == 403
    assert client.post("/vote/71", data={"csrf": "0" * 64}).status_code == 403
    client.cookies.clear()
    assert client.post("/vote/71", data={"csrf": own}).status_code == 403
    csrf(client)  # a new visitor
    assert client.post("/vote/71", data={"csrf": own}).status_code == 403
    assert client.get("/vote/71").status_code == 405
    assert votes.counts(database) == {}


def test_a_forged_cookie_and_a_foreign_page_are_refused(
    client: TestClient, database: Database
) -> None:
    token = csrf(client)
    foreign = {"sec-fetch-site": "cross-site"}
    assert client.post("/vote/71", data={"csrf": token}, headers=foreign).status_code == 403
    client.cookies.clear()
    client.cookies.set("anyorder", "someone." + "0" * 64)
    assert client.post("/vote/71", data={"csrf": token}).status_code == 403
    assert votes.counts(database) == {}


def test_votes_go_to_papers_that_exist(client: TestClient, database: Database) -> None:
    assert vote(client, 9999).status_code == 404
    assert votes.counts(database) == {}


@pytest.mark.parametrize(
    "back",
    ["//evil.example", "https://evil.example/", "/\\evil.example", "\\\\evil.example", "", "x",
     "/\nset-cookie: a=b", "/ x"],
)  # fmt: skip
def test_a_vote_leads_nowhere_else(client: TestClient, back: str) -> None:
    assert vote(client, data={"back": back}).headers["location"] == "/"


def test_the_database_holds_no_visitors_cookie(client: TestClient, database: Database) -> None:
    vote(client)
    name = (client.cookies["anyorder"] or "").partition(".")[0]
    with database.read() as connection:
        stored = connection.scalars(sa.text("SELECT visitor FROM anyorder_votes")).all()
    assert name not in str(stored)
    assert re.fullmatch("[0-9a-f]{64}", stored[0])


def test_cookies_are_kept_from_scripts_and_other_sites(open_site: Open) -> None:
    plain = open_site().get("/").headers["set-cookie"].lower()
    assert "httponly" in plain
    assert "samesite=lax" in plain
    assert "secure" not in plain
    secure = open_site("https://papers.example.org").get("/").headers["set-cookie"]
    assert secure.startswith("__Host-anyorder=")
    assert "; Secure" in secure
    assert "Path=/" in secure
    assert "domain" not in secure.lower()


def test_pages_of_one_visitor_are_not_kept_for_another(client: TestClient) -> None:
    assert client.get("/").headers["cache-control"] == "private, no-cache"
    assert "immutable" in client.get("/static/site.css").headers["cache-control"]


# -- limits ----------------------------------------------------------------------------------------


def test_voting_fast_is_slowed_down(client: TestClient) -> None:
    data = {"csrf": csrf(client)}
    answers = [client.post("/vote/71", data=data).status_code for _ in range(40)]
    assert answers[:30] == [303] * 30
    assert 429 in answers[30:]
    slow = client.post("/vote/71", data=data)
    assert int(slow.headers["retry-after"]) >= 1


def test_reading_fast_is_slowed_down(client: TestClient) -> None:
    answers = [client.get("/gallery").status_code for _ in range(260)]
    assert answers[:240] == [200] * 240
    assert 429 in answers


def test_asking_for_digests_fast_is_slowed_down(client: TestClient) -> None:
    data = {"csrf": csrf(client, "/subscribe"), "frequency": "daily"}
    answers = [
        client.post("/subscribe", data={**data, "address": f"a{n}@example.org"}).status_code
        for n in range(6)
    ]
    assert answers == [200] * 5 + [429]


def test_large_bodies_are_refused_announced_or_not(client: TestClient) -> None:
    body = b"csrf=" + b"x" * MAX_BODY
    assert client.post("/vote/71", content=body, headers={"content-type": FORM}).status_code == 413

    def parts() -> Any:
        for _ in range(20):
            yield b"x" * 1024

    assert (
        client.post("/vote/71", content=parts(), headers={"content-type": FORM}).status_code == 413
    )


def test_only_plain_forms_are_read(client: TestClient) -> None:
    token = csrf(client)
    files = {"csrf": ("f", token.encode())}
    assert client.post("/vote/71", files=files).status_code == 415
    assert client.post("/vote/71", json={"csrf": token}).status_code == 415
    many = "&".join(f"a{n}=1" for n in range(100))
    answer = client.post("/vote/71", content=many, headers={"content-type": FORM})
    assert answer.status_code == 400


# -- the digest ------------------------------------------------------------------------------------


def ask(client: TestClient, address: str = "a@example.org", frequency: str = "daily") -> Any:
    data = {"csrf": csrf(client, "/subscribe"), "address": address, "frequency": frequency}
    return client.post("/subscribe", data=data)


def link(sink: Sink, place: int = -1) -> str:
    body = sink.letters[place].get_body(("plain",))
    assert body is not None
    found = re.search(r"https?://\S+/confirm/\S+", body.get_content())
    assert found is not None
    return found[0]


def test_subscribing_takes_a_letter_and_a_press(
    client: TestClient, sink: Sink, database: Database
) -> None:
    assert "Check your mailbox" in ask(client).text
    assert sink.recipients == ["a@example.org"]
    path = link(sink).removeprefix("http://testserver")
    # What opens links by itself changes nothing.
    for _ in range(3):
        assert client.get(path).status_code == 200
    with database.read() as connection:
        assert connection.scalar(sa.select(subscribers.c.confirmed)) is None
    done = client.post(path, data={"csrf": csrf(client)})
    assert "You are subscribed" in done.text
    with database.read() as connection:
        assert connection.scalar(sa.select(subscribers.c.confirmed)) is not None
    again = client.post(path, data={"csrf": csrf(client)})
    assert "This link no longer works" in again.text


def test_an_old_link_does_nothing(client: TestClient, sink: Sink, clock: Clock) -> None:
    ask(client)
    clock.now += CONFIRM_SECONDS
    path = link(sink).removeprefix("http://testserver")
    answer = client.post(path, data={"csrf": csrf(client)})
    assert "This link no longer works" in answer.text


def test_addresses_never_confirmed_are_forgotten_without_any_digest(
    client: TestClient, database: Database, clock: Clock
) -> None:
    ask(client)
    clock.now += CONFIRM_SECONDS
    ask(client, "b@example.org")
    with database.read() as connection:
        stored = list(connection.scalars(sa.select(subscribers.c.address)))
    assert stored == ["b@example.org"]


def test_the_answer_is_the_same_for_known_new_and_throttled_addresses(
    client: TestClient, sink: Sink, clock: Clock
) -> None:
    new = ask(client)
    throttled = ask(client)
    client.post(link(sink).removeprefix("http://testserver"), data={"csrf": csrf(client)})
    clock.now += PAUSE_SECONDS
    known = ask(client)
    other = ask(client, "other@example.org")
    assert {answer.status_code for answer in (new, throttled, known, other)} == {200}
    assert len({answer.text for answer in (new, throttled, known, other)}) == 1
    assert sink.recipients == ["a@example.org", "a@example.org", "other@example.org"]


def test_links_in_letters_ignore_the_request(open_site: Open, sink: Sink) -> None:
    client = open_site("https://papers.example.org")
    data = {"csrf": csrf(client, "/subscribe"), "address": "a@example.org", "frequency": "daily"}
    client.post("/subscribe", data=data, headers={"host": "evil.example"})
    assert link(sink).startswith("https://papers.example.org/confirm/")
    assert "evil.example" not in sink.letters[0].as_string()


@pytest.mark.parametrize("address", ["", "nobody", "a@b", "a@example.org\r\nBcc: b@example.org"])
def test_wrong_addresses_are_told_and_shown_again(
    client: TestClient, sink: Sink, address: str
) -> None:
    answer = ask(client, address)
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert sink.letters == []


def test_a_hostile_address_stays_text(client: TestClient) -> None:
    page = Tags(ask(client, '"><script>alert(1)</script>@example.org').text)
    assert len(page.named("script")) == 1


def test_subscribing_and_confirming_need_the_form_token(
    client: TestClient, sink: Sink, database: Database
) -> None:
    data = {"address": "a@example.org", "frequency": "daily"}
    assert client.post("/subscribe", data=data).status_code == 403
    assert sink.letters == []
    ask(client)
    path = link(sink).removeprefix("http://testserver")
    assert client.post(path, data={"csrf": "x"}).status_code == 403
    with database.read() as connection:
        assert connection.scalar(sa.select(subscribers.c.confirmed)) is None


def leave_token(database: Database) -> str:
    from anyorder_papers.subscriptions import unsubscribe_token

    with database.write() as connection:
        person = connection.scalar(sa.select(subscribers.c.id))
        assert person is not None
        return unsubscribe_token(connection, person, 0)


def people(database: Database) -> int:
    with database.read() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(subscribers)) or 0


@pytest.mark.parametrize(
    "body",
    [{"data": {"List-Unsubscribe": "One-Click"}}, {"files": {"List-Unsubscribe": "One-Click"}}],
)
def test_one_click_leaves_without_cookie_or_token(
    client: TestClient, open_site: Open, database: Database, body: dict[str, Any]
) -> None:
    ask(client)
    path = f"/unsubscribe/{leave_token(database)}"
    program = open_site()  # a mail program: no cookies
    assert program.get(path).status_code == 200
    assert people(database) == 1
    program.cookies.clear()
    answer = program.post(path, **body)
    assert answer.status_code == 200
    assert people(database) == 0
    with database.read() as connection:
        assert connection.execute(sa.select(tokens)).all() == []


def test_leaving_answers_the_same_for_any_link(client: TestClient, database: Database) -> None:
    ask(client)
    client.get("/")  # the cookie is set
    real = client.post(f"/unsubscribe/{leave_token(database)}")
    wrong = client.post("/unsubscribe/nothing")
    assert (real.status_code, real.text) == (wrong.status_code, wrong.text)


def test_without_a_mail_server_nobody_is_asked_for_an_address(open_site: Open) -> None:
    client = open_site(mail=False)
    assert "does not send mail" in client.get("/subscribe").text
    assert 'name="address"' not in client.get("/subscribe").text
    assert 'href="/subscribe"' not in client.get("/").text
    assert client.post("/subscribe", data={"address": "a@example.org"}).status_code == 404


def test_a_mail_server_that_fails_changes_no_answer(client: TestClient, sink: Sink) -> None:
    sink.answers = ["554 no"]
    assert ask(client).status_code == 200


# -- logs and failures -----------------------------------------------------------------------------


def test_logs_hold_no_address_token_or_query(
    client: TestClient, sink: Sink, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        sink.answers = ["554 no such user a@example.org"]
        ask(client)
        ask(client, "b@example.org")
        ask(client, "not-an-address@")
        path = link(sink).removeprefix("http://testserver")
        client.post(path, data={"csrf": csrf(client)})
        client.get("/?q=private-thoughts")
        client.post(f"/unsubscribe/{leave_token(database)}")
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("anyorder")]
    text = "\n".join(ours)
    assert "POST /confirm/{token} 200" in text
    assert "confirmation e-mail not sent: the mail server refused the message (554)" in text
    assert "example.org" not in text
    assert "not-an-address" not in text
    assert "private-thoughts" not in text
    assert path.rpartition("/")[2] not in text
    assert "testclient" not in text


def test_a_database_that_fails_is_a_page_without_details(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise DatabaseError("cannot use the database secret-place")

    token = csrf(client)
    monkeypatch.setattr(votes, "counts", fail)
    monkeypatch.setattr(votes, "toggle", fail)
    answer = client.get("/")
    assert answer.status_code == 503
    assert "secret-place" not in answer.text
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert client.post("/vote/71", data={"csrf": token}).status_code == 503


def test_a_bug_is_a_page_without_details(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("details <b>")

    monkeypatch.setattr(votes, "counts", fail)
    answer = client.get("/")
    assert answer.status_code == 500
    assert "details" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"

"""Cookies, form tokens, rate limits, the secret."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyorder_papers.database import DatabaseError
from anyorder_papers.site.guard import (
    CONTENT_POLICY,
    RateLimit,
    Visitors,
    client_key,
    load_secret,
)

VISITORS = Visitors(b"a" * 32)


def test_a_cookie_of_ours_is_known_again() -> None:
    cookie = VISITORS.new()
    name = VISITORS.check(cookie)
    assert name is not None
    assert cookie.startswith(name)
    assert VISITORS.new() != cookie


@given(st.text())
def test_no_made_up_cookie_is_taken(cookie: str) -> None:
    assert VISITORS.check(cookie) is None


def test_a_changed_cookie_is_refused() -> None:
    cookie = VISITORS.new()
    assert VISITORS.check(cookie[:-1] + ("0" if cookie[-1] != "0" else "1")) is None
    assert VISITORS.check("x" + cookie) is None
    assert VISITORS.check(None) is None
    assert Visitors(b"b" * 32).check(cookie) is None


def test_form_tokens_belong_to_one_visitor() -> None:
    assert VISITORS.accepts("anna", VISITORS.form_token("anna"))
    assert not VISITORS.accepts("bert", VISITORS.form_token("anna"))
    assert not VISITORS.accepts(None, VISITORS.form_token("anna"))
    assert not VISITORS.accepts("anna", "")
    assert not VISITORS.accepts("anna", "é")
    # A cookie's signature is no form token.
    cookie = VISITORS.new()
    name = VISITORS.check(cookie)
    assert not VISITORS.accepts(name, cookie.rpartition(".")[2])


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 bytes, got 5"):
        Visitors(b"short")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_limit_lets_through_what_was_earned() -> None:
    clock = Clock()
    limit = RateLimit(3, 60, clock=clock)
    assert [limit.take("a") for _ in range(3)] == [0, 0, 0]
    assert limit.take("a") == pytest.approx(20)
    assert limit.take("b") == 0
    clock.now = 19
    assert limit.take("a") == pytest.approx(1)
    clock.now = 20
    assert limit.take("a") == 0
    assert limit.take("a") > 0
    clock.now = 10_000
    assert [limit.take("a") > 0 for _ in range(4)] == [False, False, False, True]


def test_a_rate_limit_remembers_only_so_many() -> None:
    limit = RateLimit(1, 60, clients=100, clock=Clock())
    for number in range(1000):
        limit.take(str(number))
    assert len(limit) == 100
    assert limit.take("999") > 0
    assert limit.take("0") == 0


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("testclient", "testclient"),
    ],
)
def test_a_client_is_an_address_or_its_network(host: str, key: str) -> None:
    assert client_key({"client": (host, 1)}) == key


def test_a_connection_without_address_is_one_client() -> None:
    assert client_key({"client": None}) == client_key({}) == "unknown"


def test_the_secret_is_made_once_for_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANYORDER_SECRET", raising=False)
    first = load_secret(tmp_path / "home")
    assert len(first) >= 32
    assert load_secret(tmp_path / "home") == first
    assert stat.S_IMODE((tmp_path / "home" / "secret").stat().st_mode) == 0o600
    assert load_secret(tmp_path / "other") != first


def test_the_secret_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANYORDER_SECRET", "x" * 40)
    assert load_secret(tmp_path / "home") == b"x" * 40
    assert not (tmp_path / "home").exists()
    monkeypatch.setenv("ANYORDER_SECRET", "x" * 31)
    with pytest.raises(DatabaseError, match="at least 32 characters"):
        load_secret(tmp_path / "home")


def test_a_secret_that_cannot_be_kept_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANYORDER_SECRET", raising=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseError, match="cannot store the site's secret"):
        load_secret(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "secret").write_text("")
    with pytest.raises(DatabaseError, match="does not contain a secret"):
        load_secret(tmp_path / "empty")


def test_the_content_policy_allows_nothing_inline_or_foreign() -> None:
    assert "unsafe" not in CONTENT_POLICY
    assert "http" not in CONTENT_POLICY
    assert "default-src 'none'" in CONTENT_POLICY

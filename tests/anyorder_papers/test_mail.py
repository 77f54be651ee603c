"""Mail: addresses, headers nobody can add to, and what a server's answer means."""

from __future__ import annotations

import smtplib
import socket
import ssl
from email import message_from_bytes
from email.message import EmailMessage
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyorder_papers.mail import (
    AddressError,
    LostError,
    MailError,
    MailSettings,
    RefusedError,
    Session,
    check_address,
    compose,
)

if TYPE_CHECKING:
    from conftest import Sink

SETTINGS = MailSettings("mail.example.org", 587, "starttls", "AnyOrder papers <p@example.org>")


def letter(**changes: object) -> EmailMessage:
    values = {"to": "a@example.org", "subject": "S", "text": "T", "html": "<p>T</p>", "now": 0}
    return compose(SETTINGS, **{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("name@example.org", "name@example.org"),
        ("  first.last+tag@Sub.Example.ORG ", "first.last+tag@sub.example.org"),
        ("o'neil@example.co.uk", "o'neil@example.co.uk"),
        ("name@bücher.example", "name@xn--bcher-kva.example"),
    ],
)
def test_addresses_are_brought_to_one_form(typed: str, kept: str) -> None:
    assert check_address(typed) == kept


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "name",
        "@example.org",
        "name@",
        "name@localhost",
        "name@127.0.0.1",
        "name@[127.0.0.1]",
        "a@b@example.org",
        "a b@example.org",
        ".a@example.org",
        "a..b@example.org",
        '"a b"@example.org',
        "a@-example.org",
        "a@example..org",
        "a@example.org, b@example.org",
        "a@example.org\nBcc: b@example.org",
        "a\r\nBcc:b@example.org",
        "a\x00@example.org",
        "=?utf-8?q?b=40evil.example=2c?=@example.org",
        "<script>@example.org",
        "namé@example.org",
        f"{'a' * 65}@example.org",
        f"a@{'b' * 63}.{'c' * 63}.{'d' * 63}.{'e' * 63}.example.org",
        f"a@{'b' * 300}.org",
    ],
)
def test_anything_else_is_refused_without_being_repeated(typed: str) -> None:
    with pytest.raises(AddressError, match=r"name@example\.org$") as caught:
        check_address(typed)
    assert str(caught.value) == "expected an e-mail address such as name@example.org"


@given(st.text())
def test_no_text_makes_more_than_one_recipient(text: str) -> None:
    try:
        address = check_address(text)
    except AddressError:
        return
    message = letter(to=address)
    assert [header.addr_spec for header in message["To"].addresses] == [address]


def test_a_letter_has_its_headers_once_and_whole() -> None:
    long = f"<https://example.org/unsubscribe/{'x' * 200}>"
    message = letter(subject="Größe ✓", headers={"List-Unsubscribe": long})
    raw = message_from_bytes(message.as_bytes())
    assert raw["List-Unsubscribe"] == long
    assert raw.get_all("To") == ["a@example.org"]
    assert message["Date"] == "Thu, 01 Jan 1970 00:00:00 +0000"
    assert str(message["Message-ID"]).endswith("@example.org>")
    assert message["Auto-Submitted"] == "auto-generated"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]


@pytest.mark.parametrize("break_", ["\n", "\r", "\r\n", "\x00", "\x0b"])
def test_no_header_takes_a_line_break(break_: str) -> None:
    with pytest.raises(ValueError, match="expected one line in the header Subject"):
        letter(subject=f"S{break_}Bcc: b@example.org")
    with pytest.raises(ValueError, match="expected one line in the header X"):
        letter(headers={"X": f"v{break_}Bcc: b@example.org"})
    with pytest.raises(AddressError):
        letter(to=f"a@example.org{break_}Bcc: b@example.org")


def test_settings_from_a_url() -> None:
    url = "smtp://us%40er:p%2Fw@mail.example.org"
    settings = MailSettings.from_url(url, "Papers <p@example.org>")
    assert (settings.host, settings.port, settings.security) == (
        "mail.example.org",
        587,
        "starttls",
    )
    assert (settings.user, settings.password) == ("us@er", "p/w")
    assert "p/w" not in repr(settings)
    assert MailSettings.from_url("smtps://m.example.org", "p@example.org").port == 465
    assert MailSettings.from_url("smtp+plain://localhost:2525", "p@localhost").security == "none"


@pytest.mark.parametrize(
    ("url", "sender", "message"),
    [
        ("http://secret@host", "p@example.org", "expected an SMTP URL"),
        ("smtp://", "p@example.org", "expected an SMTP URL"),
        ("smtp://host:99999", "p@example.org", "expected a port number"),
        ("smtp+plain://u:secret@host", "p@example.org", "would send the password unencrypted"),
        ("smtp://host", "nobody", "expected a sender"),
    ],
)
def test_wrong_settings_are_explained_without_their_password(
    url: str, sender: str, message: str
) -> None:
    with pytest.raises(MailError, match=message) as caught:
        MailSettings.from_url(url, sender)
    assert "secret" not in str(caught.value)


def test_a_letter_arrives(sink: Sink) -> None:
    with Session(sink.settings) as session:
        for _ in range(2):
            session.ready()
            session.send(letter())
    assert sink.recipients == ["a@example.org", "a@example.org"]
    assert sink.letters[0]["Subject"] == "S"


def test_a_refusal_is_told_from_a_broken_connection(sink: Sink) -> None:
    sink.answers = ["554 no", "hang up"]
    with Session(sink.settings) as session:
        session.ready()
        with pytest.raises(RefusedError, match="refused the message \\(554\\)"):
            session.send(letter())
        session.ready()
        with pytest.raises(LostError):
            session.send(letter())
        session.ready()
        session.send(letter())
    assert len(sink.letters) == 1


def test_a_refused_recipient_is_not_named(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: smtplib.SMTP, *args: object) -> None:
        raise smtplib.SMTPRecipientsRefused({"a@example.org": (550, b"no a@example.org here")})

    with Session(sink.settings) as session:
        session.ready()
        monkeypatch.setattr(smtplib.SMTP, "send_message", refuse)
        with pytest.raises(RefusedError, match=r"refused the recipient \(550\)") as caught:
            session.send(letter())
    assert "example.org" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_no_server_is_explained() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = MailSettings("127.0.0.1", port, "none", "p@example.org")
    with (
        Session(settings) as session,
        pytest.raises(MailError, match=rf"127\.0\.0\.1:{port} \(ConnectionRefusedError\); check"),
    ):
        session.ready()


def test_a_server_without_encryption_gets_nothing(sink: Sink) -> None:
    settings = MailSettings("127.0.0.1", sink.port, "starttls", "p@example.org", timeout=300.0)
    with (
        Session(settings) as session,
        pytest.raises(MailError, match="SMTPNotSupportedError"),
    ):
        session.ready()
    assert sink.letters == []


def test_certificates_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ssl.SSLContext] = []

    def stop(*args: object, context: ssl.SSLContext, **rest: object) -> smtplib.SMTP:
        seen.append(context)
        raise ConnectionRefusedError

    monkeypatch.setattr(smtplib, "SMTP_SSL", stop)
    settings = MailSettings("127.0.0.1", 465, "tls", "p@example.org")
    with Session(settings) as session, pytest.raises(MailError):
        session.ready()
    assert seen[0].verify_mode is ssl.CERT_REQUIRED
    assert seen[0].check_hostname

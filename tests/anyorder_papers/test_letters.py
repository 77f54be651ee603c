"""What the letters say, and that titles of papers cannot say anything else."""

from __future__ import annotations

from email.message import EmailMessage

from anyorder_papers.digest import Item
from anyorder_papers.letters import confirmation_letter, digest_letter
from anyorder_papers.mail import MailSettings

SETTINGS = MailSettings("mail.example.org", 587, "starttls", "AnyOrder papers <p@example.org>")
BASE = "https://papers.example.org/p"
PAPER = Item("paper:1", "Lion & <script>alert(1)</script>", "Signs & steps.", "/paper/1", "paper")
STUDY = Item("study:x:refuted", "Refuted: Lion", "Measured: 1.2.", "/paper/1", "study")


def bodies(message: EmailMessage) -> tuple[str, str]:
    text, html = (part.get_content() for part in message.iter_parts())
    return text, html


def test_the_confirmation_holds_the_link_and_nothing_else_to_press() -> None:
    message = confirmation_letter(SETTINGS, "a@example.org", "daily", BASE, "TOKEN", 0)
    text, html = bodies(message)
    assert f"{BASE}/confirm/TOKEN" in text.split()
    assert f'href="{BASE}/confirm/TOKEN"' in html
    assert "daily" in text
    assert message["List-Unsubscribe"] is None


def test_a_digest_can_be_left_in_three_ways() -> None:
    message = digest_letter(SETTINGS, "a@example.org", [PAPER], "weekly", BASE, "TOKEN", 0)
    leave = f"{BASE}/unsubscribe/TOKEN"
    assert message["List-Unsubscribe"] == f"<{leave}>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    text, html = bodies(message)
    assert leave in text.split()
    assert f'href="{leave}"' in html


def test_a_digest_lists_papers_and_studies() -> None:
    items = [PAPER, STUDY, STUDY]
    message = digest_letter(SETTINGS, "a@example.org", items, "weekly", BASE, "TOKEN", 0)
    assert message["Subject"] == "AnyOrder papers: 1 new paper, 2 study results"
    text, html = bodies(message)
    assert "Refuted: Lion" in text and "Refuted: Lion" in html
    assert f"{BASE}/paper/1" in text


def test_titles_are_escaped_in_html_and_plain_in_text() -> None:
    text, html = bodies(digest_letter(SETTINGS, "a@example.org", [PAPER], "daily", BASE, "T", 0))
    assert "<script>" not in html
    assert "Lion &amp; &lt;script&gt;" in html
    assert "* Lion & <script>alert(1)</script>" in text


def test_letters_load_nothing_from_anywhere() -> None:
    for message in (
        confirmation_letter(SETTINGS, "a@example.org", "daily", BASE, "T", 0),
        digest_letter(SETTINGS, "a@example.org", [PAPER, STUDY], "daily", BASE, "T", 0),
    ):
        _, html = bodies(message)
        assert "src=" not in html
        assert all(link.startswith(f'"{BASE}') for link in html.split("href=")[1:])

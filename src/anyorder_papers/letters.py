"""E-mails of the site: the confirmation and the digest, each as text and HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from functools import cache
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from anyorder_papers.mail import MailSettings, compose

if TYPE_CHECKING:
    from anyorder_papers.digest import Item


def confirmation_letter(
    settings: MailSettings, address: str, frequency: str, base_url: str, token: str, now: int
) -> EmailMessage:
    """Return the e-mail that asks the owner of an address to confirm the subscription."""
    values = {"frequency": frequency, "base_url": base_url, "link": f"{base_url}/confirm/{token}"}
    return compose(
        settings,
        to=address,
        subject="Confirm your AnyOrder papers digest",
        text=_render("confirm.txt", values),
        html=_render("confirm.html", values),
        now=now,
    )


def digest_letter(
    settings: MailSettings,
    address: str,
    items: Sequence[Item],
    frequency: str,
    base_url: str,
    token: str,
    now: int,
) -> EmailMessage:
    """Return a digest, with the headers of RFC 8058 for one-click unsubscription."""
    leave = f"{base_url}/unsubscribe/{token}"
    papers = [item for item in items if item.kind == "paper"]
    studies = [item for item in items if item.kind == "study"]
    parts = [
        f"{len(found)} {name if len(found) == 1 else plural}"
        for found, name, plural in (
            (papers, "new paper", "new papers"),
            (studies, "study result", "study results"),
        )
        if found
    ]
    values = {
        "papers": papers,
        "studies": studies,
        "frequency": frequency,
        "base_url": base_url,
        "leave": leave,
    }
    return compose(
        settings,
        to=address,
        subject=f"AnyOrder papers: {', '.join(parts)}",
        text=_render("digest.txt", values),
        html=_render("digest.html", values),
        headers={
            "List-Unsubscribe": f"<{leave}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        },
        now=now,
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("anyorder_papers.site", "templates/mail"),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _render(name: str, values: Mapping[str, object]) -> str:
    return _environment().get_template(name).render(values)

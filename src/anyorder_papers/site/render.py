"""Templates, links and static files, for both the server and the export."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from anyorder_papers.catalogue import Paper
from anyorder_papers.site.entries import topic_name

STATIC = Path(__file__).parent / "static"
STATIC_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FIGURE_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
# Not strftime, which depends on the server's locale.
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
MONTH_NAMES = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
]  # fmt: skip
# A sign in addition to every colour, for accessibility.
SIGNS = {
    "reproduced": "\N{CHECK MARK}",
    "partly": "\N{CIRCLE WITH LEFT HALF BLACK}",
    "not at this scale": "\N{LARGE CIRCLE}",
    "refuted": "\N{MULTIPLICATION X}",
    "works": "\N{CHECK MARK}",
    "planned": "\N{WHITE CIRCLE}",
}
ORDER_NAMES = {
    "rank": "rankings",
    "0": "zeroth order",
    "1": "first order",
    "2": "second order",
    "higher": "higher order",
    "none": "no order",
}
# "partly" is also a verdict, so the state has a more specific name.
STATE_NAMES = {"partly": "partly there"}


@dataclass(frozen=True)
class Links:
    """Links relative to one page.

    Args:
        prefix: Prefix of every path: the site's path on its server, or ``../`` for each folder
            between an exported page and the root.
        exported: Whether pages are files that end in ``.html``.
    """

    prefix: str = ""
    exported: bool = False

    def page(self, path: str) -> str:
        """Link to a page, such as ``""``, ``"dates#2025-11"`` or ``"paper/71"``."""
        if not self.exported:
            return f"{self.prefix}/{path}"
        name, sharp, place = path.partition("#")
        return f"{self.prefix}{name or 'index'}.html{sharp}{place}"

    def static(self, name: str) -> str:
        """Link to a static file; it changes with the content, so the file can be cached."""
        slash = "" if self.exported else "/"
        version = "" if self.exported else f"?v={static_version(name)}"
        return f"{self.prefix}{slash}static/{name}{version}"

    def figure(self, key: str, path: Path) -> str:
        """Link to a study's figure."""
        slash = "" if self.exported else "/"
        return f"{self.prefix}{slash}figures/{key}{path.suffix}"


@cache
def static_version(name: str) -> str:
    """The first digits of the SHA-256 of a static file."""
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]


@cache
def environment() -> Environment:
    """The environment of the templates, with autoescaping and strict undefined variables."""
    made = Environment(
        loader=PackageLoader("anyorder_papers.site"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "day": day,
        "sign": sign,
        "value_name": value_name,
        "slug": slug,
        "month_name": month_name,
        "plural": plural,
    }
    made.filters.update(filters)  # pyright: ignore[reportUnknownMemberType]: untyped in Jinja
    return made


def day(paper: Paper) -> str:
    """Format a paper's date: ``5 Nov 2025``, or ``Nov 2025`` if only the month is known."""
    if paper.date is not None:
        return f"{paper.date.day} {MONTHS[paper.date.month - 1]} {paper.date.year}"
    return f"{MONTHS[paper.month.month - 1]} {paper.month.year}" if paper.month else ""


def month_name(anchor: str) -> str:
    """Format the month of an anchor such as ``2025-11``: ``November``; otherwise empty."""
    return MONTH_NAMES[int(anchor[5:]) - 1] if anchor[:1].isdigit() else ""


def value_name(value: str, filter_name: str) -> str:
    """The display name of a filter's value."""
    if filter_name == "order":
        return ORDER_NAMES.get(value, value)
    if filter_name == "state":
        return STATE_NAMES.get(value, value)
    if filter_name == "topic":
        return topic_name(value)
    return value


def sign(name: str) -> str:
    """The sign of a state or verdict; empty if there is none."""
    return SIGNS.get(name, "")


def slug(text: str) -> str:
    """Convert a text to a CSS class name: lower-case letters, digits and hyphens."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower())


def plural(count: int, one: str, many: str = "") -> str:
    """Format a number with its noun."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def render(template: str, links: Links, **values: Any) -> str:
    """Render a page."""
    return environment().get_template(template).render(links=links, **values)

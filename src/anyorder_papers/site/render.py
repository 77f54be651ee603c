"""Templates, links and static files, the same for the server and for the export."""

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
# Not strftime's, which would follow the server's language.
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
MONTH_NAMES = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
]  # fmt: skip
# A sign beside every colour: colour alone tells nothing to many readers.
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
# A verdict is called "partly", too; that of a state says what it is about.
STATE_NAMES = {"partly": "partly there"}


@dataclass(frozen=True)
class Links:
    """Where things are, seen from one page.

    Args:
        prefix: What stands before every path: the site's path on its server, or ``../`` for the
            folders between an exported page and the top.
        exported: Whether pages are files that end in ``.html``.
    """

    prefix: str = ""
    exported: bool = False

    def page(self, path: str) -> str:
        """Link to a page, given as ``""``, ``"dates#2025-11"`` or ``"paper/71"``."""
        if not self.exported:
            return f"{self.prefix}/{path}"
        name, sharp, place = path.partition("#")
        return f"{self.prefix}{name or 'index'}.html{sharp}{place}"

    def static(self, name: str) -> str:
        """Link to a static file; changes with its content, so that it may be cached for ever."""
        slash = "" if self.exported else "/"
        version = "" if self.exported else f"?v={static_version(name)}"
        return f"{self.prefix}{slash}static/{name}{version}"

    def figure(self, key: str, path: Path) -> str:
        """Link to a study's figure."""
        slash = "" if self.exported else "/"
        return f"{self.prefix}{slash}figures/{key}{path.suffix}"


@cache
def static_version(name: str) -> str:
    """First digits of the SHA-256 of a static file."""
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]


@cache
def environment() -> Environment:
    """The templates' environment: everything is escaped, nothing may be undefined."""
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
    """A paper's date for a reader: ``5 Nov 2025``, or ``Nov 2025`` if no more is known."""
    if paper.date is not None:
        return f"{paper.date.day} {MONTHS[paper.date.month - 1]} {paper.date.year}"
    return f"{MONTHS[paper.month.month - 1]} {paper.month.year}" if paper.month else ""


def month_name(anchor: str) -> str:
    """The month of an anchor such as ``2025-11`` for a reader: ``November``; else empty."""
    return MONTH_NAMES[int(anchor[5:]) - 1] if anchor[:1].isdigit() else ""


def value_name(value: str, filter_name: str) -> str:
    """The value of a filter for a reader."""
    if filter_name == "order":
        return ORDER_NAMES.get(value, value)
    if filter_name == "state":
        return STATE_NAMES.get(value, value)
    if filter_name == "topic":
        return topic_name(value)
    return value


def sign(name: str) -> str:
    """The sign of a state or verdict; empty where there is none."""
    return SIGNS.get(name, "")


def slug(text: str) -> str:
    """A text as the name of a style: small letters, digits and hyphens."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower())


def plural(count: int, one: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def render(template: str, links: Links, **values: Any) -> str:
    """Render a page."""
    return environment().get_template(template).render(links=links, **values)

"""How the site is run."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from anyorder.errors import AnyOrderError
from anyorder_papers.mail import MailSettings


class SettingsError(AnyOrderError, ValueError):
    """A setting of the site is not what it must be."""


@dataclass(frozen=True)
class Settings:
    """How the site is run.

    Args:
        base_url: The address under which visitors reach it, e.g. ``https://papers.example.org``.
            Links in letters come from here and never from a request.
        secret: At least 32 random bytes; signs cookies and forms.
        mail: The mail server, or ``None``: then nobody can subscribe.
    """

    base_url: str
    secret: bytes = field(repr=False)
    mail: MailSettings | None = None

    def __post_init__(self) -> None:
        """Check the address once."""
        try:
            parts = urlsplit(self.base_url)
            _ = parts.port
        except ValueError as error:
            raise SettingsError(
                f"expected an address such as https://papers.example.org, got {self.base_url!r} "
                f"({error})"
            ) from None
        plain = not (parts.query or parts.fragment or "@" in parts.netloc)
        if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
            raise SettingsError(
                f"expected an address such as https://papers.example.org, got {self.base_url!r}"
            )
        object.__setattr__(self, "base_url", self.base_url.rstrip("/"))

    @property
    def prefix(self) -> str:
        """The path part of the address, without a slash at its end."""
        return urlsplit(self.base_url).path

    @property
    def cookie(self) -> str:
        """The cookie's name; over HTTPS one that no other host and no plain page can set."""
        return "__Host-anyorder" if self.base_url.startswith("https:") else "anyorder"

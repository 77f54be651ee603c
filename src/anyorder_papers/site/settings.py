"""Settings of the site."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from anyorder.errors import AnyOrderError
from anyorder_papers.mail import MailSettings


class SettingsError(AnyOrderError, ValueError):
    """A setting of the site is invalid."""


@dataclass(frozen=True)
class Settings:
    """Settings of the site.

    Args:
        base_url: The URL that visitors use, e.g. ``https://papers.example.org``. Links in e-mails
            are based on it, never on a request.
        secret: At least 32 random bytes; signs cookies and forms.
        mail: The mail server, or ``None`` to disable subscriptions.
    """

    base_url: str
    secret: bytes = field(repr=False)
    mail: MailSettings | None = None

    def __post_init__(self) -> None:
        """Check the URL."""
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
        """The path of the URL, without a trailing slash."""
        return urlsplit(self.base_url).path

    @property
    def cookie(self) -> str:
        """The cookie's name; over HTTPS one that other hosts and HTTP pages cannot set."""
        return "__Host-anyorder" if self.base_url.startswith("https:") else "anyorder"

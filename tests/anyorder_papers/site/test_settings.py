"""The settings of the site."""

from __future__ import annotations

import pytest

from anyorder_papers.site.settings import Settings, SettingsError


@pytest.mark.parametrize(
    "url", ["", "papers.example.org", "ftp://x", "https://", "https://u:p@x", "https://x/?a=b"]
)
def test_a_wrong_base_url_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="expected an address such as"):
        Settings(url, b"")


def test_settings_never_show_the_secret() -> None:
    assert "hush" not in repr(Settings("http://x", b"hush"))


def test_the_path_and_the_cookie_follow_the_address() -> None:
    plain, secure = Settings("http://x/papers/", b""), Settings("https://x", b"")
    assert (plain.base_url, plain.prefix, plain.cookie) == (
        "http://x/papers",
        "/papers",
        "anyorder",
    )
    assert (secure.prefix, secure.cookie) == ("", "__Host-anyorder")

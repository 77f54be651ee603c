"""``anyorder papers serve``, ``export`` and ``digest``."""

from __future__ import annotations

import ipaddress
import logging
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from anyorder.errors import AnyOrderError
from anyorder_papers.database import Database
from anyorder_papers.digest import Digest, Item, due, send_due
from anyorder_papers.mail import MailError, MailSettings
from anyorder_papers.search import search
from anyorder_papers.site.app import create_app
from anyorder_papers.site.entries import load_library
from anyorder_papers.site.export import export as write_export
from anyorder_papers.site.guard import load_secret
from anyorder_papers.site.render import plural
from anyorder_papers.site.settings import Settings, SettingsError
from anyorder_papers.store import home

DatabaseOption = Annotated[
    str,
    typer.Option(
        "--database",
        envvar="ANYORDER_DATABASE",
        show_default=False,
        help="sqlite:///FILE or postgresql://... (default: a file in ANYORDER_HOME).",
    ),
]
BaseUrlOption = Annotated[
    str,
    typer.Option(
        "--base-url",
        envvar="ANYORDER_BASE_URL",
        show_default=False,
        help="The URL that visitors use, e.g. https://papers.example.org. All links start with it.",
    ),
]
SmtpOption = Annotated[
    str,
    typer.Option(
        "--smtp-url",
        envvar="ANYORDER_SMTP_URL",
        show_default=False,
        help="smtp://user:password@host:587 (STARTTLS), smtps:// or smtp+plain://. Set the "
        "variable rather than the option: other users can see a command's options.",
    ),
]
SenderOption = Annotated[
    str,
    typer.Option(
        "--mail-from",
        envvar="ANYORDER_MAIL_FROM",
        show_default=False,
        help="Sender of all e-mails, e.g. 'AnyOrder papers <papers@example.org>'.",
    ),
]
ListingsOption = Annotated[
    Path | None,
    typer.Option(
        "--listings",
        envvar="ANYORDER_SEEDS",
        show_default=False,
        help="Folder of listings with the papers' abstracts; without it none are shown.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line of the catalogue."""
    app.command("serve")(serve)
    app.command("export")(export)
    app.command("digest")(digest)


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8000,
    database: DatabaseOption = "",
    base_url: BaseUrlOption = "",
    smtp_url: SmtpOption = "",
    mail_from: SenderOption = "",
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(help="Address of a trusted proxy, whose X-Forwarded-For is used; repeatable."),
    ] = None,
    listings: ListingsOption = None,
) -> None:
    """Serve the catalogue as a web site."""
    import uvicorn

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with _plain_errors():
        settings = Settings(
            base_url or _own_address(host, port),
            load_secret(home()),
            _mail(smtp_url, mail_from) if smtp_url else None,
        )
        site = create_app(load_library(listings), Database(database or None), settings, search)
    typer.echo(f"Serving the catalogue at {settings.base_url}/ (Ctrl-C stops it)")
    if settings.mail is None:
        typer.echo("No mail server is set (--smtp-url): subscriptions are disabled.")
    if settings.base_url.startswith("https:") and not trusted_proxy:
        typer.echo(
            "No proxy is set (--trusted-proxy): behind one, all visitors share one address, and "
            "therefore one rate limit and one vote per paper.",
            err=True,
        )
    uvicorn.run(
        site,
        host=host,
        port=port,
        # Our own log lines contain routes, not addresses or tokens.
        access_log=False,
        server_header=False,
        log_config=None,
        proxy_headers=bool(trusted_proxy),
        forwarded_allow_ips=trusted_proxy or [],
        limit_concurrency=200,
    )


def export(
    folder: Annotated[Path, typer.Argument(help="Output folder; an earlier export is replaced.")],
    listings: ListingsOption = None,
) -> None:
    """Write the catalogue as a folder of static files, without votes and digest."""
    with _plain_errors():
        done = write_export(load_library(listings), folder)
    typer.echo(f"Wrote {done.pages} pages ({done.files} files) to {folder}")


def digest(
    send: Annotated[
        bool, typer.Option("--send", help="Send them; otherwise only list them.")
    ] = False,
    database: DatabaseOption = "",
    base_url: BaseUrlOption = "",
    smtp_url: SmtpOption = "",
    mail_from: SenderOption = "",
) -> None:
    """Send the digests that are due, e.g. from cron. Safe to run at any time."""
    with _plain_errors():
        announced = load_library().announced()
        opened = Database(database or None)
        if not send:
            _tell(due(opened, announced, int(time.time())))
            return
        if not base_url or not smtp_url:
            raise SettingsError("--send needs --base-url and --smtp-url (or their variables)")
        # Checks the URL; nothing is signed here.
        address = Settings(base_url, b"").base_url
        report = send_due(
            opened, announced, _mail(smtp_url, mail_from), address, lambda: int(time.time())
        )
    typer.echo(f"Sent {plural(report.sent, 'digest')}.")
    for count, what in (
        (report.refused, "were rejected by the mail server; the next run tries them again"),
        (report.lost, "were interrupted; they may have been delivered and are not sent again"),
        (
            report.stale,
            "were started by a run that died; they may have been delivered and are not sent again",
        ),
    ):
        if count:
            typer.echo(f"{count} {what}.", err=True)
    if report.refused or report.lost:
        raise typer.Exit(1)


def _tell(digests: list[Digest]) -> None:
    counts = Counter(digest.frequency for digest in digests)
    split = f" ({counts['daily']} daily, {counts['weekly']} weekly)" if digests else ""
    typer.echo(f"Would send {plural(len(digests), 'digest')}{split}; --send sends them.")
    items: dict[str, Item] = {item.key: item for digest in digests for item in digest.items}
    for item in items.values():
        typer.echo(f"  {item.kind}: {item.title}")


def _mail(url: str, sender: str) -> MailSettings:
    if not sender:
        raise MailError(
            "expected a sender in addition to the mail server: --mail-from "
            "'AnyOrder papers <papers@example.org>'"
        )
    return MailSettings.from_url(url, sender)


def _own_address(host: str, port: int) -> str:
    """Return the URL of a site that only this machine can reach.

    Raises:
        SettingsError: If others can reach it: its public name is then required.
    """
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise SettingsError(
            f"listening on {host}, expected --base-url with the URL that visitors use, e.g. "
            "https://papers.example.org"
        )
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _plain_errors() -> Generator[None]:
    """Print expected errors, and files that cannot be read, as one line; exit with code 2."""
    try:
        yield
    except (AnyOrderError, OSError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from None

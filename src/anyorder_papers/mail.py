"""E-mail: settings, messages that are safe from header injection, and an SMTP session.

Either an SMTP server has rejected a message (:class:`RefusedError`), or its response was lost
(:class:`LostError`): only in the first case is it safe to try again without sending twice. Errors
and log lines of this module never contain an address.
"""

from __future__ import annotations

import re
import smtplib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid, parseaddr
from types import TracebackType
from urllib.parse import unquote, urlsplit

from anyorder.errors import AnyOrderError

# One line per header (RFC 5322 allows 998 characters): folding would break long links.
POLICY = SMTP.clone(max_line_length=998)
SECURITY = {"smtp": "starttls", "smtps": "tls", "smtp+plain": "none"}
PORTS = {"starttls": 587, "tls": 465, "none": 25}
ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
LOCAL = re.compile(rf"{ATOM}(\.{ATOM})*")
DOMAIN = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])")


class AddressError(AnyOrderError, ValueError):
    """An invalid e-mail address."""


class MailError(AnyOrderError, RuntimeError):
    """Mail is not configured, or the server cannot be used."""


class RefusedError(MailError):
    """The server rejected the message."""


class LostError(MailError):
    """The connection broke while sending the message: it may have been delivered."""


@dataclass(frozen=True)
class MailSettings:
    """Settings of the SMTP server.

    Args:
        host: Name of the server.
        port: TCP port.
        security: ``"starttls"``, ``"tls"`` (from the first byte) or ``"none"`` (loopback only in
            practice: a local relay).
        sender: Address in ``From``, with or without a name.
        user: User name, or empty for none.
        password: Its password; never shown.
        timeout: Seconds to wait for the server.
    """

    host: str
    port: int
    security: str
    sender: str
    user: str = ""
    password: str = field(default="", repr=False)
    timeout: float = 20.0

    @classmethod
    def from_url(cls, url: str, sender: str) -> MailSettings:
        """Read ``smtp://user:password@host:port`` (STARTTLS), ``smtps://`` or ``smtp+plain://``.

        Raises:
            MailError: If the URL or the sender is invalid; the message contains neither.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in SECURITY or not parts.hostname:
            raise MailError(
                "expected an SMTP URL such as smtp://user:password@mail.example.org:587 "
                "(STARTTLS), smtps://... (TLS) or smtp+plain://localhost:25 (no encryption)"
            )
        security = SECURITY[parts.scheme]
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if security == "none" and user:
            raise MailError(
                "smtp+plain:// would send the password unencrypted; use smtp:// or smtps://"
            )
        try:
            port = parts.port or PORTS[security]
        except ValueError:
            raise MailError("expected a port number between 1 and 65535 in the SMTP URL") from None
        try:
            check_address(parseaddr(sender)[1], public=False)
        except AddressError:
            raise MailError(
                "expected a sender such as 'AnyOrder papers <papers@example.org>' (--mail-from)"
            ) from None
        return cls(parts.hostname, port, security, sender, user, password)


def check_address(text: str, *, public: bool = True) -> str:
    """Check an address and normalise it for storage.

    Args:
        text: The address as typed. Non-ASCII letters are accepted in the domain, not before the
            ``@``.
        public: Require a full domain name; ``False`` also accepts ``localhost``.

    Returns:
        The address with an ASCII, lower-case domain.

    Raises:
        AddressError: If it is not an address; the message does not contain it.
    """
    wrong = AddressError("expected an e-mail address such as name@example.org")
    local, at, domain = text.strip().rpartition("@")
    # "=?" could begin an encoded word, which a mail program would decode.
    if not at or len(local) > 64 or "=?" in local or not LOCAL.fullmatch(local):
        raise wrong
    try:
        domain = domain.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise wrong from None
    known = DOMAIN.fullmatch(domain) or (not public and domain == "localhost")
    if not known or len(local) + 1 + len(domain) > 254:
        raise wrong
    return f"{local}@{domain}"


def compose(
    settings: MailSettings,
    *,
    to: str,
    subject: str,
    text: str,
    html: str,
    headers: Mapping[str, str] | None = None,
    now: int,
) -> EmailMessage:
    """Create a message in plain text and HTML.

    Raises:
        AddressError: If ``to`` is not an address.
        ValueError: If a header contains a line break.
    """
    message = EmailMessage(policy=POLICY)
    domain = parseaddr(settings.sender)[1].rpartition("@")[2]
    fields = {
        "From": settings.sender,
        "To": check_address(to),
        "Subject": subject,
        "Date": format_datetime(datetime.fromtimestamp(now, UTC)),
        "Message-ID": make_msgid(domain=domain),
        "Auto-Submitted": "auto-generated",
        **(headers or {}),
    }
    for name, value in fields.items():
        if any(ord(letter) < 32 for letter in value):
            raise ValueError(f"expected one line in the header {name}, got a control character")
        message[name] = value
    message.set_content(text)
    message.add_alternative(html, subtype="html")
    return message


class Session:
    """An SMTP connection that reconnects if the server has closed it.

    Use it as a context manager. :meth:`ready` ensures a live connection, so that an error in
    :meth:`send` concerns a single message.
    """

    def __init__(self, settings: MailSettings) -> None:
        self._settings = settings
        self._smtp: smtplib.SMTP | None = None

    def __enter__(self) -> Session:
        """Return the session; :meth:`ready` connects."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self._drop()

    def ready(self) -> None:
        """Connect, or check that the connection is alive.

        Raises:
            MailError: If the server cannot be reached or rejects the login.
        """
        if self._smtp is not None:
            try:
                if self._smtp.noop()[0] == 250:
                    return
            except (smtplib.SMTPException, OSError):
                pass
            self._drop()
        settings = self._settings
        try:
            self._smtp = _connect(settings)
        except (smtplib.SMTPException, OSError) as error:
            code = getattr(error, "smtp_code", "")
            raise MailError(
                f"cannot use the mail server {settings.host}:{settings.port} "
                f"({type(error).__name__} {code}".rstrip()
                + "); check the SMTP URL, its user and password, and the network"
            ) from None

    def send(self, message: EmailMessage) -> None:
        """Send one message; call :meth:`ready` first.

        Raises:
            RefusedError: If the server rejected it.
            LostError: If the connection broke before its response.
        """
        assert self._smtp is not None, "call ready() before send()"
        try:
            self._smtp.send_message(message)
        except smtplib.SMTPServerDisconnected:
            self._drop()
            raise LostError("the connection to the mail server broke") from None
        except smtplib.SMTPRecipientsRefused as error:
            # The exception's text contains the address.
            code = next((code for code, _ in error.recipients.values()), "")
            raise RefusedError(f"the mail server refused the recipient ({code})") from None
        except smtplib.SMTPResponseException as error:
            raise RefusedError(f"the mail server refused the message ({error.smtp_code})") from None
        except smtplib.SMTPException as error:
            raise RefusedError(
                f"the mail server refused the message ({type(error).__name__})"
            ) from None
        except OSError as error:
            self._drop()
            raise LostError(
                f"the connection to the mail server broke ({type(error).__name__})"
            ) from None

    def _drop(self) -> None:
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            try:
                smtp.quit()
            except (smtplib.SMTPException, OSError):
                smtp.close()


def _connect(settings: MailSettings) -> smtplib.SMTP:
    context = ssl.create_default_context()
    if settings.security == "tls":
        smtp: smtplib.SMTP = smtplib.SMTP_SSL(
            settings.host, settings.port, timeout=settings.timeout, context=context
        )
    else:
        smtp = smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout)
    try:
        if settings.security == "starttls":
            smtp.starttls(context=context)
        if settings.user:
            smtp.login(settings.user, settings.password)
    except BaseException:
        smtp.close()
        raise
    return smtp

"""Security of the site: visitors' cookies, form tokens, rate limits and response headers."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anyorder_papers.database import DatabaseError

log = logging.getLogger("anyorder_papers.access")

COOKIE_SECONDS = 365 * 24 * 3600
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# A figure opened as a document may use its own styles and nothing else.
FIGURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Visitors:
    """Signs the cookies that identify visitors, and the tokens of their forms.

    Args:
        secret: At least 32 secret bytes of the site.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 32:
            raise ValueError(f"expected a secret of at least 32 bytes, got {len(secret)}")
        self._secret = secret

    def new(self) -> str:
        """Return a cookie for a new visitor."""
        name = secrets.token_urlsafe(16)
        return f"{name}.{self._sign('visitor', name)}"

    def check(self, cookie: str | None) -> str | None:
        """Return the visitor's name if the cookie has our signature, else ``None``."""
        name, dot, signature = (cookie or "").rpartition(".")
        if not dot or not _equal(signature, self._sign("visitor", name)):
            return None
        return name

    def form_token(self, visitor: str) -> str:
        """Return the token that this visitor's forms must contain."""
        return self._sign("form", visitor)

    def accepts(self, visitor: str | None, token: str) -> bool:
        """Whether a form came from a page that we served to this visitor."""
        return visitor is not None and _equal(token, self.form_token(visitor))

    def network(self, client: str, paper: int) -> str:
        """Return the hash of a voter's network that the database stores for a paper.

        The hash differs for every paper, so the database does not reveal which votes came from one
        network; without the secret, addresses cannot be tested against it either.
        """
        return self._sign("network", f"{paper}:{client}")

    def _sign(self, purpose: str, text: str) -> str:
        message = f"{purpose}:{text}".encode("utf-8", "surrogatepass")
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()


def _equal(one: str, other: str) -> bool:
    # As bytes: compare_digest rejects non-ASCII text, which a cookie may contain.
    return hmac.compare_digest(
        one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass")
    )


def visitor_hash(visitor: str) -> str:
    """Return the hash of a visitor's name that the database stores."""
    return hashlib.sha256(visitor.encode()).hexdigest()


def load_secret(folder: Path) -> bytes:
    """Return the secret from ``ANYORDER_SECRET``, or from a file that only its owner can read.

    Raises:
        DatabaseError: If the variable is too short or the file cannot be created or read.
    """
    given = os.environ.get("ANYORDER_SECRET", "").encode()
    if given:
        if len(given) < 32:
            raise DatabaseError(
                f"expected at least 32 characters in ANYORDER_SECRET, got {len(given)}; make one "
                "with: python -c 'import secrets; print(secrets.token_hex(32))'"
            )
        return given
    path = folder / "secret"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return _read_secret(path)
        with os.fdopen(handle, "wb") as file:
            secret = secrets.token_hex(32).encode()
            file.write(secret)
        return secret
    except OSError as error:
        raise DatabaseError(
            f"cannot store the site's secret in {path} ({error.strerror}); set ANYORDER_SECRET, or "
            "ANYORDER_HOME to a writable folder"
        ) from None


def _read_secret(path: Path) -> bytes:
    # Another process may have created the file but not written it yet.
    for _ in range(20):
        secret = path.read_bytes().strip()
        if len(secret) >= 32:
            return secret
        time.sleep(0.05)
    raise DatabaseError(
        f"the file {path} does not contain a secret of 32 bytes; delete it and start again"
    )


class RateLimit:
    """A token bucket per client, for the most recent clients only.

    Args:
        amount: Maximum number of requests in a burst.
        seconds: Time to refill that many requests.
        clients: Number of clients to remember; the least recently seen is dropped first.
        clock: Monotonic clock in seconds.
    """

    def __init__(
        self,
        amount: int,
        seconds: float,
        *,
        clients: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.amount, self.seconds, self.clients = amount, seconds, clients
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """Number of clients currently remembered."""
        return len(self._buckets)

    def take(self, client: str) -> float:
        """Use one request.

        Returns:
            0 if it is allowed, otherwise the seconds to wait.
        """
        with self._lock:
            now = self._clock()
            left, at = self._buckets.pop(client, (float(self.amount), now))
            rate = self.amount / self.seconds
            left = min(float(self.amount), left + (now - at) * rate)
            wait = 0.0 if left >= 1.0 else (1.0 - left) / rate
            self._buckets[client] = (left if wait else left - 1.0, now)
            if len(self._buckets) > self.clients:
                self._buckets.popitem(last=False)
            return wait


def client_key(scope: Scope) -> str:
    """Return the client of a rate limit: an IPv4 address, or the /64 network of an IPv6 one.

    The address is the connection's own; ``serve --trusted-proxy`` lets the server replace it by
    the one that a proxy forwards.
    """
    client: tuple[str, int] | None = scope.get("client")
    text = client[0] if client else "unknown"
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return text


class Headers:
    """ASGI middleware for all responses, including errors: sets headers and writes the log.

    A log line contains method, route, status and time. The route is a pattern
    (``/confirm/{token}``), so the log contains no tokens, queries or client addresses.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "private, no-cache")
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            route = scope.get("route")
            log.info(
                "%s %s %d %.0f ms",
                scope["method"],
                getattr(route, "path", "(no such page)"),
                status,
                1000 * (time.perf_counter() - started),
            )

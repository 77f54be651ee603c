"""The served site: pages, votes, and subscriptions to the digest."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from anyorder_papers import subscriptions, votes
from anyorder_papers.database import Database, DatabaseError
from anyorder_papers.digest import sync_items
from anyorder_papers.letters import confirmation_letter
from anyorder_papers.mail import AddressError, MailError, MailSettings, Session
from anyorder_papers.site.entries import Library
from anyorder_papers.site.guard import Headers, RateLimit, client_key, visitor_hash
from anyorder_papers.site.listing import Search
from anyorder_papers.site.pages import Pages
from anyorder_papers.site.render import render
from anyorder_papers.site.settings import Settings

log = logging.getLogger("anyorder_papers.site")

MAX_BODY = 16 * 1024


class Site(Pages):
    """The pages, and the endpoints that modify data: votes and the digest.

    Args:
        library: The entries to show.
        database: Votes and subscribers.
        settings: Settings of the site.
        search: Ranks papers by a text.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        library: Library,
        database: Database,
        settings: Settings,
        search: Search,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(library, database, settings, search, clock)
        # Votes, subscriptions, and all e-mails together, for all clients.
        self.changes = RateLimit(30, 60)
        self.asks = RateLimit(5, 3600)
        self.letters = RateLimit(200, 3600, clients=1)

    # -- votes ---------------------------------------------------------------------------------

    async def vote(self, request: Request) -> Response:
        """Add or withdraw a vote.

        Each visitor is identified by a cookie, and each network has one vote per paper: cookies are
        cheap to create, addresses are not.
        """
        self.limit(self.changes, request)
        form = await self._form(request)
        visitor = self._checked_visitor(request, form)
        entry = self.entry(request)
        number, network = entry.paper.id, client_key(request.scope)
        try:
            count, given = await run_in_threadpool(
                votes.toggle,
                self.database,
                number,
                visitor_hash(visitor),
                self.visitors.network(network, number),
                self.now(),
            )
        except votes.NetworkVotedError:
            raise HTTPException(409) from None
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse({"votes": count, "voted": given})
        return RedirectResponse(self._own_path(_text(form, "back")), 303)

    # -- the digest ----------------------------------------------------------------------------

    def subscribe_form(self, request: Request) -> Response:
        """The form."""
        self.limit(self.reads, request)
        return self._subscribe_page(request)

    async def subscribe(self, request: Request) -> Response:
        """Send a confirmation e-mail; the response is the same for every valid address."""
        if self.settings.mail is None:
            raise HTTPException(404)
        self.limit(self.asks, request)
        form = await self._form(request)
        self._checked_visitor(request, form)
        address, frequency = _text(form, "address"), _text(form, "frequency")
        if frequency not in subscriptions.FREQUENCIES:
            frequency = "weekly"
        # Here too, so that addresses are deleted in time even if no digest is ever sent.
        await run_in_threadpool(subscriptions.purge, self.database, self.now())
        try:
            token = await run_in_threadpool(
                subscriptions.request, self.database, address, frequency, self.now()
            )
        except AddressError as error:
            page = await run_in_threadpool(
                self._subscribe_page, request, str(error), address, frequency
            )
            page.status_code = 422
            return page
        answer = await run_in_threadpool(self._message, request, "asked")
        if token is not None and not self.letters.take("everybody"):
            # After the response is sent, so that its timing reveals nothing.
            answer.background = BackgroundTask(
                self._send_confirmation, self.settings.mail, address, frequency, token
            )
        return answer

    def confirm_form(self, request: Request) -> Response:
        """Show a button: mail programs may open links automatically, but do not press buttons."""
        self.limit(self.reads, request)
        return self._token_page(request, "confirm")

    async def confirm(self, request: Request) -> Response:
        """Confirm a subscription."""
        self.limit(self.changes, request)
        form = await self._form(request)
        self._checked_visitor(request, form)
        token = request.path_params["token"]
        done = await run_in_threadpool(subscriptions.confirm, self.database, token, self.now())
        return await run_in_threadpool(self._message, request, "confirmed" if done else "expired")

    def unsubscribe_form(self, request: Request) -> Response:
        """A button."""
        self.limit(self.reads, request)
        return self._token_page(request, "unsubscribe")

    async def unsubscribe(self, request: Request) -> Response:
        """Delete an address.

        No cookie or form token is required: by RFC 8058, mail programs send this request without
        them, and the token in the path is the proof. The response does not depend on it.
        """
        # Large mail services send requests for many people from few addresses.
        self.limit(self.reads, request)
        token = request.path_params["token"]
        await run_in_threadpool(subscriptions.unsubscribe, self.database, token)
        return await run_in_threadpool(self._message, request, "left")

    # -- errors --------------------------------------------------------------------------------

    def failed(self, request: Request, error: Exception) -> Response:
        """Render the page for an error."""
        status, headers = 500, None
        if isinstance(error, HTTPException):
            status, headers = error.status_code, error.headers
        elif isinstance(error, DatabaseError):
            status = 503
            log.error("%s", error)
        else:
            log.error("%s in %s", type(error).__name__, request.scope.get("endpoint"))
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse({"status": status}, status, headers)
        html = render("error.html", self.links, status=status, mail=self.settings.mail is not None)
        return HTMLResponse(html, status, headers)

    # -- helpers -------------------------------------------------------------------------------

    def _subscribe_page(
        self, request: Request, error: str = "", address: str = "", frequency: str = "weekly"
    ) -> HTMLResponse:
        return self.page(
            request, "subscribe.html", error=error, address=address, frequency=frequency
        )

    def _token_page(self, request: Request, action: str) -> Response:
        # The token is not looked up: this page does not reveal whether it is valid.
        return self.page(request, "token.html", action=action, path=request.url.path)

    def _message(self, request: Request, name: str) -> Response:
        return self.page(request, "message.html", message=name)

    def _send_confirmation(
        self, mail: MailSettings, address: str, frequency: str, token: str
    ) -> None:
        try:
            letter = confirmation_letter(
                mail, address, frequency, self.settings.base_url, token, self.now()
            )
            with Session(mail) as session:
                session.ready()
                session.send(letter)
        except MailError as error:
            log.error("confirmation e-mail not sent: %s", error)

    def _checked_visitor(self, request: Request, form: FormData) -> str:
        """Return the visitor who sent this form from a page of this site.

        Raises:
            HTTPException: 403 if another site sent it, or the cookie is missing or expired.
        """
        visitor = self.visitor(request)
        foreign = request.headers.get("sec-fetch-site") == "cross-site"
        if foreign or visitor is None or not self.visitors.accepts(visitor, _text(form, "csrf")):
            raise HTTPException(403)
        return visitor

    async def _form(self, request: Request) -> FormData:
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if kind != "application/x-www-form-urlencoded":
            raise HTTPException(415)
        return await request.form(max_fields=20)

    def _own_path(self, path: str) -> str:
        """Return the path if it belongs to this site, else the list, to prevent open redirects."""
        inside = path == self.settings.prefix or path.startswith(f"{self.settings.prefix}/")
        odd = path.startswith("//") or "\\" in path or any(ord(c) <= 32 for c in path)
        return path if inside and not odd and path else f"{self.settings.prefix}/"


def create_app(
    library: Library,
    database: Database,
    settings: Settings,
    search: Search,
    clock: Callable[[], float] = time.time,
) -> ASGIApp:
    """Return the site as an ASGI application.

    Args:
        library: The entries to show.
        database: Votes and subscribers.
        settings: Settings of the site.
        search: Ranks papers by a text.
        clock: Seconds since 1970.
    """
    site = Site(library, database, settings, search, clock)
    sync_items(database, library.announced(), site.now())
    at = settings.prefix
    routes = [
        Route(f"{at}/", site.home),
        Route(f"{at}/paper/{{number:int}}", site.paper),
        Route(f"{at}/study/{{key}}", site.study),
        Route(f"{at}/dates", site.dates),
        Route(f"{at}/gallery", site.gallery),
        Route(f"{at}/figures/{{name}}", site.figure),
        Route(f"{at}/static/{{name}}", site.static),
        Route(f"{at}/vote/{{number:int}}", site.vote, methods=["POST"]),
        Route(f"{at}/subscribe", site.subscribe_form),
        Route(f"{at}/subscribe", site.subscribe, methods=["POST"]),
        Route(f"{at}/confirm/{{token}}", site.confirm_form),
        Route(f"{at}/confirm/{{token}}", site.confirm, methods=["POST"]),
        Route(f"{at}/unsubscribe/{{token}}", site.unsubscribe_form),
        Route(f"{at}/unsubscribe/{{token}}", site.unsubscribe, methods=["POST"]),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: site.failed,
            DatabaseError: site.failed,
            Exception: site.failed,
        },
        max_body_size=MAX_BODY,
    )
    # Redirects of slashes would use the Host header, which is not trusted.
    app.router.redirect_slashes = False
    return Headers(app)


def _text(form: FormData, name: str) -> str:
    value = form.get(name)
    return value if isinstance(value, str) else ""

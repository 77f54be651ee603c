"""The served site: pages, votes, and subscribing to the digest."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from anyorder_papers import subscriptions, votes
from anyorder_papers.database import Database, DatabaseError
from anyorder_papers.digest import sync_items
from anyorder_papers.letters import confirmation_letter
from anyorder_papers.mail import AddressError, MailError, MailSettings, Session
from anyorder_papers.site.entries import VERDICTS, Entry, Library
from anyorder_papers.site.guard import (
    COOKIE_SECONDS,
    FIGURE_POLICY,
    Headers,
    RateLimit,
    Visitors,
    client_key,
    visitor_hash,
)
from anyorder_papers.site.listing import (
    FILTERS,
    Query,
    Search,
    choices,
    listing,
    select,
    verdict_choices,
)
from anyorder_papers.site.render import FIGURE_TYPES, STATIC, STATIC_TYPES, Links, render
from anyorder_papers.site.settings import Settings

log = logging.getLogger("anyorder_papers.site")

MAX_BODY = 16 * 1024


class Site:
    """The endpoints, with what they share.

    Args:
        library: What is shown.
        database: Votes and subscribers.
        settings: How the site is run.
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
        self.library, self.database, self.settings, self.search = (
            library,
            database,
            settings,
            search,
        )
        self.visitors = Visitors(settings.secret)
        self.links = Links(settings.prefix)
        self._clock = clock
        self.choices = {name: choices(library.entries, name) for name in FILTERS}
        # Reading, voting, asking for the digest; and all letters together, whoever asks.
        self.reads = RateLimit(240, 60)
        self.changes = RateLimit(30, 60)
        self.asks = RateLimit(5, 3600)
        self.letters = RateLimit(200, 3600, clients=1)

    def now(self) -> int:
        """Seconds since 1970."""
        return int(self._clock())

    # -- pages ---------------------------------------------------------------------------------

    def home(self, request: Request) -> Response:
        """The list."""
        self._limit(self.reads, request)
        query = Query.read(request.query_params)
        counts = votes.counts(self.database)
        found = select(self.library, query, counts, self.search)
        page = listing(found, query)
        return self._page(
            request,
            "home.html",
            query=query,
            listing=page,
            choices=self.choices,
            votes=counts,
            total=len(self.library.entries),
            back=request.url.path + query.link(page=page.page),
        )

    def paper(self, request: Request) -> Response:
        """One paper."""
        self._limit(self.reads, request)
        entry = self._entry(request)
        counts = votes.counts(self.database)
        return self._page(request, "paper.html", entry=entry, votes=counts, back=request.url.path)

    def gallery(self, request: Request) -> Response:
        """All figures."""
        self._limit(self.reads, request)
        wanted = request.query_params.get("verdict", "")
        return self._page(
            request,
            "gallery.html",
            studied=self.library.studied,
            wanted=wanted if wanted in VERDICTS else "",
            verdicts=verdict_choices(self.library),
        )

    def figure(self, request: Request) -> Response:
        """A study's figure; only the files that the library names are ever read."""
        name, _, suffix = request.path_params["name"].rpartition(".")
        path = self.library.figures.get(name)
        if path is None or path.suffix != f".{suffix}" or path.suffix not in FIGURE_TYPES:
            raise HTTPException(404)
        return FileResponse(
            path,
            media_type=FIGURE_TYPES[path.suffix],
            headers={"content-security-policy": FIGURE_POLICY, "cache-control": "max-age=300"},
        )

    def static(self, request: Request) -> Response:
        """A style sheet, script or icon of ours."""
        path = STATIC / request.path_params["name"]
        if path.suffix not in STATIC_TYPES or not path.is_file():
            raise HTTPException(404)
        forever = "public, max-age=31536000, immutable"
        return FileResponse(
            path, media_type=STATIC_TYPES[path.suffix], headers={"cache-control": forever}
        )

    # -- votes ---------------------------------------------------------------------------------

    async def vote(self, request: Request) -> Response:
        """Give or take back a vote."""
        self._limit(self.changes, request)
        form = await self._form(request)
        visitor = self._checked_visitor(request, form)
        entry = self._entry(request)
        count, given = await run_in_threadpool(
            votes.toggle, self.database, entry.paper.id, visitor_hash(visitor), self.now()
        )
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse({"votes": count, "voted": given})
        return RedirectResponse(self._own_path(_text(form, "back")), 303)

    # -- the digest ----------------------------------------------------------------------------

    def subscribe_form(self, request: Request) -> Response:
        """The form."""
        self._limit(self.reads, request)
        return self._subscribe_page(request)

    async def subscribe(self, request: Request) -> Response:
        """Send a confirmation letter; the answer is the same for every valid address."""
        if self.settings.mail is None:
            raise HTTPException(404)
        self._limit(self.asks, request)
        form = await self._form(request)
        self._checked_visitor(request, form)
        address, frequency = _text(form, "address"), _text(form, "frequency")
        if frequency not in subscriptions.FREQUENCIES:
            frequency = "weekly"
        # Here too, so that addresses are forgotten in time where no digest is ever sent.
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
            # After the answer has left, so that its timing tells nothing either.
            answer.background = BackgroundTask(
                self._send_confirmation, self.settings.mail, address, frequency, token
            )
        return answer

    def confirm_form(self, request: Request) -> Response:
        """A button: mail programs open links on their own, but they press no buttons."""
        self._limit(self.reads, request)
        return self._token_page(request, "confirm")

    async def confirm(self, request: Request) -> Response:
        """Start a digest."""
        self._limit(self.changes, request)
        form = await self._form(request)
        self._checked_visitor(request, form)
        token = request.path_params["token"]
        done = await run_in_threadpool(subscriptions.confirm, self.database, token, self.now())
        return await run_in_threadpool(self._message, request, "confirmed" if done else "expired")

    def unsubscribe_form(self, request: Request) -> Response:
        """A button."""
        self._limit(self.reads, request)
        return self._token_page(request, "unsubscribe")

    async def unsubscribe(self, request: Request) -> Response:
        """Forget an address.

        No cookie and no form token are asked for: RFC 8058 has mail programs post here without
        either, and the token in the path is the proof. The answer does not depend on it.
        """
        # Large mail services post for many people from few addresses.
        self._limit(self.reads, request)
        token = request.path_params["token"]
        await run_in_threadpool(subscriptions.unsubscribe, self.database, token)
        return await run_in_threadpool(self._message, request, "left")

    # -- errors --------------------------------------------------------------------------------

    def failed(self, request: Request, error: Exception) -> Response:
        """The page for an error."""
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

    def _page(self, request: Request, template: str, **values: Any) -> HTMLResponse:
        visitor = self._visitor(request)
        cookie = None if visitor else self.visitors.new()
        name = visitor or self.visitors.check(cookie)
        assert name is not None, "our own cookie carries our signature"
        mine = votes.voted(self.database, visitor_hash(name)) if visitor else frozenset[int]()
        html = render(
            template,
            self.links,
            csrf=self.visitors.form_token(name),
            mine=mine,
            mail=self.settings.mail is not None,
            **values,
        )
        response = HTMLResponse(html)
        if cookie is not None:
            response.set_cookie(
                self.settings.cookie,
                cookie,
                max_age=COOKIE_SECONDS,
                path="/",
                secure=self.settings.base_url.startswith("https:"),
                httponly=True,
                samesite="lax",
            )
        return response

    def _subscribe_page(
        self, request: Request, error: str = "", address: str = "", frequency: str = "weekly"
    ) -> HTMLResponse:
        return self._page(
            request, "subscribe.html", error=error, address=address, frequency=frequency
        )

    def _token_page(self, request: Request, action: str) -> Response:
        # The token is not looked up: this page says nothing about it.
        return self._page(request, "token.html", action=action, path=request.url.path)

    def _message(self, request: Request, name: str) -> Response:
        return self._page(request, "message.html", message=name)

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
            log.error("confirmation letter not sent: %s", error)

    def _entry(self, request: Request) -> Entry:
        entry = self.library.by_id.get(request.path_params["number"])
        if entry is None:
            raise HTTPException(404)
        return entry

    def _visitor(self, request: Request) -> str | None:
        return self.visitors.check(request.cookies.get(self.settings.cookie))

    def _checked_visitor(self, request: Request, form: FormData) -> str:
        """The visitor whose own page sent this form.

        Raises:
            HTTPException: 403 if another site sent it, or the cookie is missing or old.
        """
        visitor = self._visitor(request)
        foreign = request.headers.get("sec-fetch-site") == "cross-site"
        if foreign or visitor is None or not self.visitors.accepts(visitor, _text(form, "csrf")):
            raise HTTPException(403)
        return visitor

    def _limit(self, limit: RateLimit, request: Request) -> None:
        wait = limit.take(client_key(request.scope))
        if wait:
            raise HTTPException(429, headers={"retry-after": str(int(wait) + 1)})

    async def _form(self, request: Request) -> FormData:
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if kind != "application/x-www-form-urlencoded":
            raise HTTPException(415)
        return await request.form(max_fields=20)

    def _own_path(self, path: str) -> str:
        """The path if it is one of this site's, else the list: no redirect leads elsewhere."""
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
    """The site as an ASGI application.

    Args:
        library: What is shown.
        database: Votes and subscribers.
        settings: How the site is run.
        search: Ranks papers by a text.
        clock: Seconds since 1970.
    """
    site = Site(library, database, settings, search, clock)
    sync_items(database, library.announced(), site.now())
    at = settings.prefix
    routes = [
        Route(f"{at}/", site.home),
        Route(f"{at}/paper/{{number:int}}", site.paper),
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
    # Slashes are redirected by the Host header, which may say anything.
    app.router.redirect_slashes = False
    return Headers(app)


def _text(form: FormData, name: str) -> str:
    value = form.get(name)
    return value if isinstance(value, str) else ""

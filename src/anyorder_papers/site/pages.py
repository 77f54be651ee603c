"""The pages of the served site, and common code of all endpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from anyorder_papers import votes
from anyorder_papers.database import Database
from anyorder_papers.site.entries import VERDICTS, Entry, Library
from anyorder_papers.site.guard import (
    COOKIE_SECONDS,
    FIGURE_POLICY,
    RateLimit,
    Visitors,
    client_key,
    visitor_hash,
)
from anyorder_papers.site.listing import (
    FILTERS,
    Query,
    Search,
    by_date,
    choices,
    listing,
    select,
    verdict_choices,
)
from anyorder_papers.site.render import FIGURE_TYPES, STATIC, STATIC_TYPES, Links, render
from anyorder_papers.site.settings import Settings


class Pages:
    """The read-only endpoints, and common code of all endpoints.

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
        self.years = by_date(library.entries)
        self.reads = RateLimit(240, 60)

    def now(self) -> int:
        """Seconds since 1970."""
        return int(self._clock())

    # -- pages ---------------------------------------------------------------------------------

    def home(self, request: Request) -> Response:
        """The list."""
        self.limit(self.reads, request)
        query = Query.read(request.query_params)
        counts = votes.counts(self.database)
        found = select(self.library, query, counts, self.search)
        page = listing(found, query)
        return self.page(
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
        self.limit(self.reads, request)
        entry = self.entry(request)
        return self.page(
            request,
            "paper.html",
            entry=entry,
            neighbours=self.library.neighbours(entry),
            votes=votes.counts(self.database),
            back=request.url.path,
        )

    def study(self, request: Request) -> Response:
        """One study of background work."""
        self.limit(self.reads, request)
        study = self.library.others.get(request.path_params["key"])
        if study is None:
            raise HTTPException(404)
        return self.page(request, "study.html", study=study)

    def dates(self, request: Request) -> Response:
        """All papers by month."""
        self.limit(self.reads, request)
        return self.page(request, "dates.html", years=self.years)

    def gallery(self, request: Request) -> Response:
        """All figures."""
        self.limit(self.reads, request)
        wanted = request.query_params.get("verdict", "")
        return self.page(
            request,
            "gallery.html",
            studied=self.library.studied,
            wanted=wanted if wanted in VERDICTS else "",
            verdicts=verdict_choices(self.library),
        )

    def figure(self, request: Request) -> Response:
        """A study's figure; only files that the library lists are read."""
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
        """A style sheet, script or icon of the site."""
        path = STATIC / request.path_params["name"]
        if path.suffix not in STATIC_TYPES or not path.is_file():
            raise HTTPException(404)
        forever = "public, max-age=31536000, immutable"
        return FileResponse(
            path, media_type=STATIC_TYPES[path.suffix], headers={"cache-control": forever}
        )

    # -- shared by all endpoints -----------------------------------------------------------------

    def page(self, request: Request, template: str, **values: Any) -> HTMLResponse:
        """Render a page for its visitor; set a cookie if there is none yet."""
        visitor = self.visitor(request)
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

    def entry(self, request: Request) -> Entry:
        """The paper of the URL, or 404."""
        entry = self.library.by_id.get(request.path_params["number"])
        if entry is None:
            raise HTTPException(404)
        return entry

    def visitor(self, request: Request) -> str | None:
        """The name in the visitor's cookie, if its signature is valid."""
        return self.visitors.check(request.cookies.get(self.settings.cookie))

    def limit(self, limit: RateLimit, request: Request) -> None:
        """Count one request of a client, or raise 429."""
        wait = limit.take(client_key(request.scope))
        if wait:
            raise HTTPException(429, headers={"retry-after": str(int(wait) + 1)})

"""The page that shows candidates to a person and takes the order, as an ASGI application."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anyorder.errors import AnyOrderError
from anyorder.judging.media import Media
from anyorder.judging.session import Session, SessionError, StaleError

STATIC = Path(__file__).parent / "static"
TYPES = {
    "page.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
MAX_BODY = 256 * 1024
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "media-src 'self'; connect-src 'self'; form-action 'none'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Page:
    """Answers the requests of the page.

    Args:
        session: the session that is shown.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def static(self, request: Request) -> Response:
        """A file of the page."""
        name = request.path_params.get("name", "page.html")
        if name not in TYPES:
            raise HTTPException(404)
        return Response((STATIC / name).read_bytes(), headers={"content-type": TYPES[name]})

    def question(self, request: Request) -> Response:
        """The open question with its candidates."""
        session = self.session
        question, media = session.candidates()
        return JSONResponse(
            {
                "session": session.id,
                "prompt": session.task.prompt,
                "folder": str(session.folder),
                "answered": len(session.answers),
                "questions": session.options["questions"],
                "token": question.token,
                "number": question.number,
                "part": question.part,
                "need": question.need,
                "candidates": [
                    _described(each, f"/media/{question.token}/{place}")
                    for place, each in enumerate(media)
                ],
            }
        )

    def open(self, request: Request) -> Response:
        """The token of the open question, for tabs that come to the front."""
        return JSONResponse({"token": self.session.question.token})

    def media(self, request: Request) -> Response:
        """The file of a candidate of the open question."""
        question, media = self.session.candidates()
        place = request.path_params["place"]
        if request.path_params["token"] != question.token or place >= len(media):
            raise HTTPException(404)
        return _file(media[place])

    def best(self, request: Request) -> Response:
        """The present point, described as a candidate."""
        return JSONResponse(_described(self.session.best(), "/best/media"))

    def best_media(self, request: Request) -> Response:
        """The file of the present point."""
        return _file(self.session.best())

    def result(self, request: Request) -> Response:
        """The present parameters, to be saved."""
        return FileResponse(self.session.folder / "best.json", filename="best.json")

    def answer(self, body: Any) -> None:
        """Take an answer."""
        self.session.answer(body["token"], body["order"])

    def undo(self, body: Any) -> None:
        """Undo the last answer."""
        self.session.undo(body["token"])

    def more(self, body: Any) -> None:
        """Plan more questions."""
        self.session.more(int(body["questions"]))

    def changes(self, change: Callable[[Any], None]) -> Callable[[Request], Any]:
        """The endpoint of something that changes the session; other sites cannot reach it."""

        async def endpoint(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip()
            host = request.headers.get("host")
            origin = urlsplit(request.headers.get("origin", f"http://{host}")).netloc
            if kind != "application/json" or origin != host:
                raise HTTPException(403)
            try:
                body = json.loads(await request.body())
                await run_in_threadpool(change, body)
            except (KeyError, TypeError, ValueError) as error:
                if isinstance(error, AnyOrderError):
                    raise
                raise HTTPException(400) from error
            return JSONResponse({"stored": len(self.session.answers)})

        return endpoint


def _described(media: Media, url: str) -> dict[str, Any]:
    """What the page needs to show it."""
    content = {"text": media.text, "numbers": media.rows}.get(media.kind, url)
    return {"kind": media.kind, "content": content}


def _file(media: Media) -> Response:
    # An SVG that is opened as a document may run nothing.
    policy = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}
    return Response(media.data, media_type=media.mime, headers=policy)


def _failed(request: Request, error: Exception) -> Response:
    """An error in words; the page shows them."""
    if isinstance(error, HTTPException):
        return JSONResponse({"message": f"{error.status_code}: {error.detail}"}, error.status_code)
    known: dict[type[Exception], int] = {StaleError: 409, SessionError: 503}
    return JSONResponse({"message": str(error)}, known.get(type(error), 422))


class Guard:
    """Sets headers, and refuses requests under another host's name (DNS rebinding).

    Args:
        app: the application.
        host: the address that the server listens on.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app, self.host = app, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name for name, _ in message["headers"]}
                extra = [(n.encode(), v.encode()) for n, v in HEADERS.items()]
                message["headers"] = [
                    *message["headers"],
                    *(pair for pair in extra if pair[0] not in there),
                ]
            await send(message)

        asked = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        name = urlsplit(f"//{asked}").hostname or ""
        app = self.app
        if is_loopback(self.host) and not is_loopback(name):
            app = JSONResponse({"message": f"This server is not {name}."}, 400)
        await app(scope, receive, send_with_headers)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def create_app(session: Session, host: str = "127.0.0.1") -> ASGIApp:
    """Return the page of a session as an ASGI application.

    Args:
        session: the session.
        host: the address that the server listens on.
    """
    page = Page(session)
    routes = [
        Route("/", page.static),
        Route("/static/{name}", page.static),
        Route("/question", page.question),
        Route("/open", page.open),
        Route("/media/{token}/{place:int}", page.media),
        Route("/best", page.best),
        Route("/best/media", page.best_media),
        Route("/best.json", page.result),
        Route("/answer", page.changes(page.answer), methods=["POST"]),
        Route("/undo", page.changes(page.undo), methods=["POST"]),
        Route("/more", page.changes(page.more), methods=["POST"]),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, host=host)],
        exception_handlers={HTTPException: _failed, AnyOrderError: _failed},
        max_body_size=MAX_BODY,
    )

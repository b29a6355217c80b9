"""The desk over HTTP: one page, five JSON calls, and what keeps everybody else out.

Every request has to name a host of the allow-list (else 421: a page elsewhere that rebinds its name to this machine). Each
grader has a random token in a link, which is exchanged for an HttpOnly, SameSite=Strict cookie; tokens and cookies are
compared in constant time. A POST has to be JSON (415), from this very origin (403), and small (413). The page's policy runs no
script and loads no style but its own. What the graders read is data in JSON, which the page shows as text.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ftcli.core.errors import BadData, FtcliError
from ftcli.human.desk import Desk, Unblinded

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
VOTE_BYTES = 64 * 1024
REVIEW_BYTES = 1024 * 1024
"""Longest body of a POST; an edited row may be longer than a vote."""
TOKEN_BYTES = 16
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
# A page of this server sends the browser on: after a redirect it would still count the request as that of the site where the
# link was clicked, and would withhold a SameSite=Strict cookie.
ENTERED = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/"><title>ftcli</title>'
LINK_NEEDED = "Open this desk with the link that ftcli serve printed for you."


class Graders:
    """Who may enter: a token for the link and a session for the cookie of each grader, all random and of this process only."""

    def __init__(self, names: Sequence[str]) -> None:
        self.tokens = {name: secrets.token_urlsafe(TOKEN_BYTES) for name in names}
        self.sessions = {name: secrets.token_urlsafe(TOKEN_BYTES) for name in names}

    def by_token(self, given: str) -> str | None:
        return _owner(self.tokens, given)

    def by_session(self, given: str) -> str | None:
        return _owner(self.sessions, given)


def _owner(secrets_by_name: dict[str, str], given: str) -> str | None:
    """Whose secret ``given`` is. It is compared with all of them, each in constant time."""
    given_bytes = given.encode("utf-8", "surrogateescape")
    found = [name for name, secret in secrets_by_name.items() if hmac.compare_digest(secret.encode(), given_bytes)]
    return found[0] if found else None


class Guard:
    """ASGI middleware: the host allow-list, and the headers of every answer."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) == 1 and host_name(hosts[0].decode("latin-1")) in self._hosts:
            await self._app(scope, receive, send_with_headers)
        else:
            answer = PlainTextResponse("This desk is not known under that host name.", 421)
            await answer(scope, receive, send_with_headers)


def host_name(host: str) -> str:
    """The name in a Host header, without its port, which a tunnel may change."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower().rstrip(".")


def build_app(desk: Desk, graders: Graders, hosts: Iterable[str], cookie: str = "ftcli_desk") -> ASGIApp:
    """The desk as an ASGI application, for graders whose links name one of ``hosts``."""
    page = {
        name: (files("ftcli.human") / "page" / name).read_text(encoding="utf-8")
        for name in ("index.html", "desk.js", "desk.css")
    }

    def grader_of(request: Request) -> str:
        grader = graders.by_session(request.cookies.get(cookie, ""))
        if grader is None:
            raise HTTPException(401, LINK_NEEDED)
        return grader

    async def login(request: Request) -> Response:
        grader = graders.by_token(request.query_params.get("t", ""))
        if grader is None:
            raise HTTPException(401, LINK_NEEDED)
        answer = HTMLResponse(ENTERED)
        answer.set_cookie(cookie, graders.sessions[grader], httponly=True, samesite="strict", path="/")
        return answer

    async def index(request: Request) -> Response:
        grader_of(request)
        nonce = secrets.token_urlsafe(TOKEN_BYTES)
        html = page["index.html"].replace("{nonce}", nonce)
        return HTMLResponse(html, headers={"Content-Security-Policy": POLICY.format(nonce=nonce)})

    async def script(request: Request) -> Response:
        grader_of(request)
        return Response(page["desk.js"], media_type="text/javascript")

    async def style(request: Request) -> Response:
        grader_of(request)
        return Response(page["desk.css"], media_type="text/css")

    async def icon(request: Request) -> Response:
        return Response(status_code=204)  # browsers ask for one by themselves

    async def tasks(request: Request) -> Response:
        grader = grader_of(request)
        return JSONResponse({"grader": grader, "tasks": await run_in_threadpool(desk.tasks, grader)})

    def post(path: str, limit: int, act: Callable[[str, dict[str, Any]], dict[str, Any]]) -> Route:
        async def endpoint(request: Request) -> Response:
            grader = grader_of(request)
            body = await _body(request, limit)
            return JSONResponse(await run_in_threadpool(act, grader, body))

        return Route(path, endpoint, methods=["POST"])

    routes = [
        Route("/", index),
        Route("/login", login),
        Route("/favicon.ico", icon),
        Route("/desk.js", script),
        Route("/desk.css", style),
        Route("/api/tasks", tasks),
        post("/api/view", VOTE_BYTES, lambda grader, body: desk.view(grader, body.get("task"))),
        post("/api/vote", VOTE_BYTES, desk.vote),
        post("/api/review", REVIEW_BYTES, desk.vote),
        post("/api/undo", VOTE_BYTES, lambda grader, body: desk.undo(grader, body.get("task"))),
        post("/api/summary", VOTE_BYTES, lambda grader, body: desk.summary(grader, body.get("task"))),
    ]
    allowed = frozenset(host.lower() for host in (*LOOPBACK, *hosts))
    return Guard(
        Starlette(routes=routes, exception_handlers={FtcliError: _refused, HTTPException: _http_error}), allowed
    )


async def _body(request: Request, limit: int) -> dict[str, Any]:
    """The JSON object of a POST that this very page sent. A form of another page fails at each of the first two checks."""
    origin = urlsplit(request.headers.get("origin", ""))
    if origin.scheme not in ("http", "https") or origin.netloc.lower() != request.headers["host"].lower():
        raise HTTPException(403, "only the desk's own page may do that")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "JSON is needed")
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise HTTPException(413, f"at most {limit} bytes are taken", {"Connection": "close"})
    except ClientDisconnect:
        raise HTTPException(400, "the body broke off") from None
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, "no valid JSON") from None
    if not isinstance(value, dict):
        raise HTTPException(400, "a JSON object is needed")
    return value


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, FtcliError)
    status = 409 if isinstance(error, Unblinded) else 422 if isinstance(error, BadData) else 500
    return JSONResponse({"error": error.message}, status)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    return PlainTextResponse(error.detail, error.status_code, error.headers)

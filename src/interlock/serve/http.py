"""The HTTP application: guards that every request passes, and errors as people read them."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Final
from urllib.parse import urlsplit

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from interlock.app import Interlock
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import (
    IntakeFullError,
    InterlockError,
    NotFoundError,
    ProblemsError,
    UnauthenticatedError,
)
from interlock.serve import health, webhooks
from interlock.serve.console import pages
from interlock.serve.gateway import oauth
from interlock.serve.gateway.door import Gateway
from interlock.serve.gateway.oauth import MCP_PATH
from interlock.serve.model_proxy import door as models
from interlock.serve.queues.loop import QueueLoop
from interlock.serve.routes import (
    approvals,
    capabilities,
    catalog,
    effects,
    evals,
    keys,
    operations,
    project,
    runs,
    servers,
    triggers,
)
from interlock.serve.routes.stops import autonomy, breakers, budgets, switches
from interlock.serve.status import status_of

log = structlog.get_logger(__name__)

_NOT_FOUND: Final = 404
_WRONG_METHOD: Final = 405
MAX_BODY_BYTES: Final = 4 * 1024 * 1024
LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")
_PORT: Final = re.compile(r":[0-9]*$")


def create_app(interlock: Interlock) -> FastAPI:
    """Build the application over an open `Interlock`; routes say themselves who may call them."""
    gateway = Gateway(interlock)
    app = FastAPI(
        lifespan=lambda _: gateway.running(),
        title="Interlock",
        version=version("interlock"),
        description="The control plane for AI agents. Errors are `{error: {code, message}}`.",
        docs_url=None,
        redoc_url=None,
        # Its own would be open to everyone; `operations` has one that asks for sign-in.
        openapi_url=None,
    )
    app.state.interlock = interlock
    app.router.routes.append(Route(MCP_PATH, gateway))
    app.include_router(oauth.router)
    app.include_router(models.router)
    app.state.queues = QueueLoop(interlock.intake)
    app.state.is_closing = False
    app.state.proof_key = secrets.token_hex(32)
    app.include_router(webhooks.router)
    for noun in (
        runs,
        approvals,
        effects,
        catalog,
        capabilities,
        autonomy,
        breakers,
        budgets,
        switches,
        servers,
        triggers,
        project,
        keys,
        evals,
        operations,
    ):
        app.include_router(noun.router, prefix="/api/v1")
    app.include_router(keys.secrets, prefix="/api/v1")
    app.include_router(health.router)
    pages.install(app)
    app.add_exception_handler(InterlockError, _on_error)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(Exception, _on_bug)
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)
    own = {interlock.config.host, urlsplit(interlock.config.url()).hostname or ""}
    app.add_middleware(HostGuard, hosts=frozenset({*own, *LOCAL_HOSTS}))
    return app


def error_body(code: str, message: str, problems: tuple[object, ...] = ()) -> JsonObject:
    """Return the body of every error answer."""
    found: list[Json] = [str(problem) for problem in problems]
    error: JsonObject = {"code": code, "message": message}
    return {"error": error | ({"problems": found} if found else {})}


async def _on_error(_request: Request, error: Exception) -> Response:
    # INVARIANT: registered for InterlockError only.
    assert isinstance(error, InterlockError)
    problems = error.problems if isinstance(error, ProblemsError) else ()
    headers: dict[str, str] = {}
    if isinstance(error, UnauthenticatedError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, IntakeFullError):
        headers["Retry-After"] = str(error.retry_after_s)
    return JSONResponse(
        error_body(error.code, error.message, problems), status_of(error), headers=headers
    )


async def _on_http(request: Request, error: Exception) -> Response:
    # INVARIANT: registered for HTTPException only.
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, InterlockError):
        return await _on_error(request, error.__cause__)
    code, message = "http", str(error.detail)
    if error.status_code == _NOT_FOUND:
        code, message = NotFoundError.code, f"there is nothing at `{request.url.path}`"
    elif error.status_code == _WRONG_METHOD:
        message = f"`{request.url.path}` takes no {request.method}"
    return JSONResponse(error_body(code, message), error.status_code, headers=error.headers)


async def _on_invalid(_request: Request, error: Exception) -> Response:
    # INVARIANT: registered for RequestValidationError only.
    assert isinstance(error, RequestValidationError)
    problems = tuple(
        f"{'.'.join(str(part) for part in found['loc'])}: {found['msg'].lower()}"
        for found in error.errors()
    )
    return JSONResponse(error_body("input.invalid", "; ".join(problems), problems), 422)


async def _on_bug(request: Request, error: Exception) -> Response:
    log.error("request.failed", path=request.url.path, exc_info=error)
    return JSONResponse(
        error_body("internal", "something went wrong on our side; the log has the details"), 500
    )


class HostGuard:
    """Answers only requests for a known host, with a plain path: no decision rests on either."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it with 400 (421 for an unknown host)."""
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            host = _PORT.sub("", headers.get(b"host", b"").decode("latin-1")).lower()
            if host not in self._hosts:
                await _refuse(scope, receive, send, 421, f"this server is not `{host[:80]}`")
                return
            if "//" in scope["path"] or "\\" in scope["path"]:
                await _refuse(scope, receive, send, 400, "the path is ambiguous")
                return
            if "\0" in scope["path"] or b"%00" in scope["query_string"]:
                # Postgres keeps no such text, so it would be a fault of ours further down.
                await _refuse(scope, receive, send, 400, "the address holds a null character")
                return
        await self._app(scope, receive, send)


class BodyLimit:
    """Stops reading a request body beyond the limit, declared or not; refuses compressed ones."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a counting `receive`, or refuse it with 413 or 415."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if b"content-encoding" in headers:
            await _refuse(scope, receive, send, 415, "compressed requests are not accepted")
            return
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._max_bytes:
            msg = f"the body is larger than {self._max_bytes} bytes"
            await _refuse(scope, receive, send, 413, msg)
            return
        await self._app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Callable[[], Awaitable[Message]]:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_bytes:
                raise HTTPException(413, f"the body is larger than {self._max_bytes} bytes")
            return message

        return counted


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, message: str) -> None:
    body = json.dumps(error_body("http", message)).encode()
    await Response(body, status, media_type="application/json")(scope, receive, send)

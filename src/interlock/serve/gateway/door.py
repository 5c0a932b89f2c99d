"""The way in to the gateway: a token that leads to a session, strict JSON, then the MCP SDK.

The SDK is given what was parsed strictly, byte for byte. It keeps no sessions: which session a
request is in is said by its token alone, so that any server may answer it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Final

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from interlock.app import Interlock
from interlock.domain.canonical import Json, JsonObject, parse
from interlock.domain.errors import JsonError
from interlock.serve.gateway.oauth import MCP_PATH, RESOURCE_METADATA
from interlock.serve.gateway.server import build_server
from interlock.serve.gateway.visitor import Visitor

_PARSE_ERROR: Final = -32700
_INVALID_REQUEST: Final = -32600
_INTERNAL: Final = -32603

visitor: ContextVar[Visitor] = ContextVar("interlock_visitor")


class Gateway:
    """Answers MCP requests of both eras, each for the session of its token."""

    def __init__(self, interlock: Interlock) -> None:
        self._interlock = interlock
        server = build_server(interlock, visitor)
        self._manager = StreamableHTTPSessionManager(
            server,
            json_response=True,
            stateless=True,
            # Hosts and origins are checked in front of every route, and again here.
            security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve for as long as the block lasts."""
        async with self._manager.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request to the gateway."""
        request = Request(scope, receive)
        if request.headers.get("origin") not in {None, self._interlock.url}:
            await _error(403, _INTERNAL, "requests from web pages are not accepted")(
                scope, receive, send
            )
            return
        found = await run_in_threadpool(self._visitor, request.headers)
        if found is None:
            await self._unknown(scope, receive, send)
            return
        if request.method != "POST":
            # Nothing is pushed, and a session ends with its token: no stream, nothing to delete.
            answer = _error(405, _INTERNAL, "send a POST")
            answer.headers["Allow"] = "POST"
            await answer(scope, receive, send)
            return
        body = await request.body()
        try:
            read = await run_in_threadpool(parse, body) if len(body) > _LARGE else parse(body)
        except JsonError as error:
            await _error(400, _PARSE_ERROR, error.message)(scope, receive, send)
            return
        if not _can_be_answered(read):
            message = "a request has an `id` that is text or a whole number"
            await _error(400, _INVALID_REQUEST, message)(scope, receive, send)
            return
        token = visitor.set(found)
        try:
            await self._manager.handle_request(scope, _again(body, receive), send)
        finally:
            visitor.reset(token)

    def _visitor(self, headers: Mapping[str, str]) -> Visitor | None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        session = self._interlock.session_of(token.strip())
        return None if session is None else Visitor(run=session.run, key_id=session.key_id)

    async def _unknown(self, scope: Scope, receive: Receive, send: Send) -> None:
        url = f"{self._interlock.url}{RESOURCE_METADATA}{MCP_PATH}"
        answer = _error(401, _INTERNAL, "the token is missing, has expired or was revoked")
        answer.headers["WWW-Authenticate"] = f'Bearer resource_metadata="{url}"'
        await answer(scope, receive, send)


_LARGE: Final = 64 * 1024
"""Bytes from which parsing is not done between other requests."""


def _can_be_answered(body: Json) -> bool:
    """Whether it is no request without a usable id, which the SDK would accept and never answer."""
    if not isinstance(body, dict) or not isinstance(body.get("method"), str):
        return True
    if str(body["method"]).startswith("notifications/"):
        return True
    return type(body.get("id")) in {str, int}


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that hands out a body that was read, then what else there is."""
    is_told = False

    async def again() -> Message:
        nonlocal is_told
        if is_told:
            return await receive()
        is_told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _error(status: int, code: int, message: str) -> JSONResponse:
    error: JsonObject = {"code": code, "message": message}
    return JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, status)

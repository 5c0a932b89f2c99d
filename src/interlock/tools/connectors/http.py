"""Tools behind plain HTTP: one long-lived client per server, one request per attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import httpx2

from interlock.domain.breaker import is_failure
from interlock.domain.canonical import Json, JsonObject, parse
from interlock.domain.effect import Reply, Transport
from interlock.domain.errors import (
    InputError,
    InterlockError,
    JsonError,
    UnavailableError,
    UnreachableError,
)
from interlock.domain.tool import HttpRequest, Server
from interlock.tools import egress
from interlock.tools.addresses import target_of
from interlock.tools.connectors.drain import Drain
from interlock.tools.connectors.port import OutgoingCall
from interlock.tools.egress import WIRE, Wire
from interlock.tools.requests import http as request

_OK = range(200, 300)


class HttpConnector:
    """Reaches the tools of one HTTP server; raises `InputError` if its URL may not be reached."""

    def __init__(
        self, server: Server, *, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        for name in server.headers:
            if not request.is_settable(name):
                msg = f"the header `{name}` cannot be set by server `{server.name}`"
                raise InputError(msg)
        self._server = server
        self._target = target_of(server.url or "", server.environment)
        self._client = egress.client_of(self._target, transport=transport)
        self._drain = Drain()

    async def prepare(self, call: OutgoingCall) -> JsonObject | None:
        """Fetch a one-time link; other guards need nothing before the intent."""
        declared, guard = _declared(call), call.binding.tool.effect.guard
        if guard is None or guard.kind != "one_time_link":
            return None
        try:
            outgoing = request.build_obtain(
                declared, guard, self._target, documents=_documents(call)
            )
            reply = await self._exchange(call, outgoing)
            if reply.transport is not Transport.REPLY or reply.status not in _OK or reply.problem:
                has_failed = is_failure(reply)
                raise (UnreachableError if has_failed else UnavailableError)(_no_link(call, reply))
            return {"link": request.link_of(guard, reply.body, self._target)}
        except InputError as error:
            raise UnavailableError(error.message) from error

    async def send(self, call: OutgoingCall) -> Reply:
        """Send one request and say what was seen."""
        declared = _declared(call)
        try:
            outgoing = request.build(
                declared,
                self._target,
                documents=_documents(call),
                key=call.idem_key,
                guard=call.binding.tool.effect.guard,
            )
        except InputError as error:
            return _never_sent(error.message)
        limit = call.binding.tool.limits.request_bytes
        if outgoing.content is not None and len(outgoing.content) > limit:
            return _never_sent(f"the request has more than {limit} bytes")
        try:
            reply = await self._exchange(call, outgoing)
        except InterlockError as error:
            return _not_sent(error.message)
        return _mapped(declared, reply)

    async def aclose(self) -> None:
        """Wait for the calls under way, then close all connections."""
        await self._drain.close()
        await self._client.aclose()

    async def _exchange(self, call: OutgoingCall, outgoing: request.Outgoing) -> Reply:
        wire = Wire(reply_bytes=call.binding.tool.limits.response_bytes)
        token = WIRE.set(wire)
        try:
            with self._drain.call() as is_open:
                if not is_open:
                    return _not_sent("the connector is closed")
                async with asyncio.timeout(call.timeout_s):
                    return await self._sent(self._built(call, outgoing))
        except TimeoutError:
            return wire.lost(f"no answer within {call.timeout_s:g} s")
        except httpx2.InvalidURL as error:
            return _not_sent(str(error))
        except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            return wire.lost(egress.broken_by(error))
        finally:
            WIRE.reset(token)

    def _built(self, call: OutgoingCall, outgoing: request.Outgoing) -> httpx2.Request:
        headers: dict[str, str] = {"Accept": "application/json", **self._server.headers}
        headers |= dict(outgoing.headers)
        headers |= request.authorization(self._server.auth, call.secret)
        if call.traceparent is not None:
            headers["traceparent"] = call.traceparent
        built = self._client.build_request(
            outgoing.method,
            f"{self._target.origin}{outgoing.target}",
            headers=headers,
            content=outgoing.content,
            timeout=call.timeout_s,
        )
        if built.url.raw_path != outgoing.target.encode():
            raise InputError("the path of the request is not in its plain form")
        return built

    async def _sent(self, built: httpx2.Request) -> Reply:
        response = await self._client.send(built, stream=True)
        try:
            content = await response.aread()
            problem = None
        except httpx2.DecodingError as error:
            content, problem = b"", str(error)
        finally:
            await response.aclose()
        reply = Reply(
            transport=Transport.REPLY,
            status=response.status_code,
            etag=response.headers.get("etag"),
            problem=problem,
            retry_after_s=egress.retry_after_s(response.headers.get("retry-after")),
        )
        return reply if problem is not None else _parsed(reply, content)


def _declared(call: OutgoingCall) -> HttpRequest:
    declared = call.binding.tool.request
    # INVARIANT: a tool with connector `http` was loaded with an HTTP request.
    assert isinstance(declared, HttpRequest)
    return declared


def _documents(call: OutgoingCall) -> Mapping[str, Json]:
    effect: JsonObject = {"id": call.effect_id, "key": call.idem_key}
    return {"in": call.arguments, "effect": effect, "guard": call.guard or {}}


def _parsed(reply: Reply, content: bytes) -> Reply:
    """Read a body as strict JSON; a failure may be anything and says all by its status."""
    if not content:
        return reply
    try:
        return replace(reply, body=parse(content, max_bytes=len(content)))
    except JsonError as error:
        return replace(reply, problem=error.message) if reply.status in _OK else reply


def _mapped(declared: HttpRequest, reply: Reply) -> Reply:
    if reply.status not in _OK or reply.problem is not None:
        return reply
    try:
        body = request.result_of(
            declared, status=reply.status or 0, body=reply.body, etag=reply.etag
        )
    except InputError as error:
        return replace(reply, body=None, problem=f"the reply cannot be mapped: {error.message}")
    return replace(reply, body=body)


def _not_sent(problem: str) -> Reply:
    return Reply(transport=Transport.NOT_SENT, problem=problem)


def _never_sent(problem: str) -> Reply:
    return Reply(transport=Transport.NOT_SENT, problem=problem, is_final=True)


def _no_link(call: OutgoingCall, reply: Reply) -> str:
    why = reply.problem or f"it answered {reply.status}"
    if reply.transport is Transport.REPLY and reply.problem:
        why = "its answer cannot be read"
    return f"no one-time link from `{call.binding.server.name}`: {why}"

"""Tools behind an MCP server, over stdio or Streamable HTTP, in both protocol eras."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from importlib.metadata import version

import httpx2
from mcp import Client, ClientSession, MCPError
from mcp.client import Transport as McpTransport
from mcp.client.streamable_http import streamable_http_client
from mcp_types import (
    CONNECTION_CLOSED,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    REQUEST_TIMEOUT,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    GetPromptRequest,
    GetPromptRequestParams,
    GetPromptResult,
    Implementation,
    InputRequiredResult,
    ReadResourceRequest,
    ReadResourceRequestParams,
    ReadResourceResult,
    TextContent,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter, ValidationError

from interlock.domain import uri
from interlock.domain.canonical import JsonObject, canonical, parse
from interlock.domain.effect import Reply, Transport
from interlock.domain.errors import (
    InputError,
    InterlockError,
    JsonError,
    UnavailableError,
    UnreachableError,
)
from interlock.domain.tool import McpCall, McpKind, Server
from interlock.tools import egress
from interlock.tools.addresses import target_of
from interlock.tools.connectors.mcp import offers
from interlock.tools.connectors.mcp.contained import ContainedTransport
from interlock.tools.connectors.mcp.link import Link, Opener
from interlock.tools.connectors.mcp.stdio import stdio_transport
from interlock.tools.connectors.port import OutgoingCall
from interlock.tools.egress import WIRE, Wire
from interlock.tools.requests import http as request
from interlock.tools.upstream import TOOLS, Offer

KEY_META = "interlock/idempotency-key"
OPEN_S = 10.0

_MESSAGE_LENGTH = 200
_OK = (None, *range(200, 300))
_LOST: Mapping[int, str] = {
    CONNECTION_CLOSED: "the connection was closed",
    REQUEST_TIMEOUT: "no answer came in time",
}
_NO_EFFECT = frozenset({METHOD_NOT_FOUND, INVALID_PARAMS})
_Result = CallToolResult | ReadResourceResult | GetPromptResult | InputRequiredResult
_Request = CallToolRequest | ReadResourceRequest | GetPromptRequest
_RESULTS: Mapping[McpKind, TypeAdapter[_Result]] = {
    "tool": TypeAdapter(CallToolResult | InputRequiredResult),
    "resource": TypeAdapter(ReadResourceResult | InputRequiredResult),
    "prompt": TypeAdapter(GetPromptResult | InputRequiredResult),
}

# The SDK logs answers that it cannot parse, and answers are content.
logging.getLogger("mcp.client").setLevel(logging.CRITICAL)


class McpConnector:
    """Reaches the tools of one MCP server by their pinned upstream names.

    Over HTTP there is one session for each credential; over stdio one process. `variables` is
    where the values of a stdio server's listed environment variables are taken from.
    """

    def __init__(
        self,
        server: Server,
        *,
        variables: Mapping[str, str] | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._server = server
        self._variables = dict(variables or {})
        self._transport = transport
        self._links: dict[str | None, tuple[str, Link]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False
        if server.kind == "mcp-http":
            target_of(server.url or "", server.environment)
        elif not server.argv:
            msg = f"the server `{server.name}` has no `argv`"
            raise InputError(msg)

    async def prepare(self, call: OutgoingCall) -> JsonObject | None:
        """Return None: MCP knows no guard that is fetched."""
        del call
        return None

    async def send(self, call: OutgoingCall) -> Reply:
        """Call one tool, read a resource or get a prompt, and say what was seen."""
        declared = call.binding.tool.request
        # INVARIANT: a tool with connector `mcp` was loaded with an upstream name.
        assert isinstance(declared, McpCall)
        arguments = dict(call.arguments)
        if declared.key_argument is not None:
            arguments[declared.key_argument] = call.idem_key
        limits, wire = call.binding.tool.limits, Wire()
        if len(canonical(arguments)) > limits.request_bytes:
            too_large = _not_sent(f"the request has more than {limits.request_bytes} bytes")
            return replace(too_large, is_final=True)
        token = WIRE.set(wire)
        try:
            reply = await self._exchange(call, wire, _request(call, declared, arguments))
        except InputError as error:
            return replace(_not_sent(error.message), is_final=True)
        except InterlockError as error:
            is_unreachable = isinstance(error, UnreachableError)
            return replace(_not_sent(error.message), is_unreachable=is_unreachable)
        finally:
            WIRE.reset(token)
        return _bounded(reply, limits.response_bytes)

    async def list_offers(
        self,
        kinds: Collection[McpKind] = TOOLS,
        *,
        secret: str | None = None,
        within_s: float = 30.0,
    ) -> list[Offer]:
        """Return what the server offers of some kinds, for import and drift checks, not for calls.

        Raises `UnavailableError` if it cannot be asked or its answer is no such list.
        """
        link = self._link(None, secret)
        try:
            async with asyncio.timeout(within_s), link.session(within_s=within_s) as session:
                return await offers.listed(session, kinds)
        except (MCPError, TimeoutError, ValidationError) as error:
            msg = f"`{self._server.name}` did not list what it offers: {type(error).__name__}"
            raise UnavailableError(msg) from None

    async def aclose(self) -> None:
        """Wait for the calls under way, then close sessions and stop the process."""
        self._is_closed = True
        for _, link in self._links.values():
            self._retire(link)
        self._links.clear()
        if self._closing:
            await asyncio.wait(set(self._closing))

    async def _exchange(self, call: OutgoingCall, wire: Wire, outgoing: _Request) -> Reply:
        declared = call.binding.tool.request
        assert isinstance(declared, McpCall)  # INVARIANT: see above
        link = self._link(call.binding.credentials, call.secret)
        try:
            async with asyncio.timeout(call.timeout_s):
                async with link.session(within_s=call.timeout_s) as session:
                    # A process gets its bytes at once; over HTTP the transport says when.
                    wire.is_sent = self._server.kind == "mcp-stdio"
                    result = await session.send_request(
                        outgoing,
                        _RESULTS[declared.kind],
                        request_read_timeout_seconds=call.timeout_s + 1,
                    )
        except TimeoutError:
            return wire.lost(f"no answer within {call.timeout_s:g} s")
        except MCPError as error:
            if wire.status == HTTPStatus.NOT_FOUND:
                # An old-era session that its server forgot: the next call opens another.
                link.drop()
            return _failed(wire, error)
        except ValidationError:
            return Reply(
                transport=Transport.REPLY, status=200, problem="the result is no MCP result"
            )
        except InterlockError:
            raise
        except Exception as error:  # noqa: BLE001  # the connector's edge: what the SDK lets through
            return wire.lost(f"the session failed with a `{type(error).__name__}`")
        return _reply(result)

    def _link(self, reference: str | None, secret: str | None) -> Link:
        """Return the link of a credential; one whose secret changed is replaced."""
        if self._is_closed:
            raise UnavailableError("the connector is closed")
        is_http = self._server.kind == "mcp-http"
        reference = reference if is_http else None
        mark = hashlib.sha256((secret or "").encode()).hexdigest() if is_http else ""
        known = self._links.get(reference)
        if known is not None and known[0] == mark:
            return known[1]
        if known is not None:
            self._retire(known[1])
        opener = self._http_opener(secret) if is_http else self._open_stdio
        link = Link(self._server.name, opener)
        self._links[reference] = (mark, link)
        return link

    def _retire(self, link: Link) -> None:
        task = asyncio.create_task(link.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _http_opener(self, secret: str | None) -> Opener:
        server = self._server
        headers = {**server.headers, **request.authorization(server.auth, secret)}
        for name in server.headers:
            if not request.is_settable(name):
                msg = f"the header `{name}` cannot be set by server `{server.name}`"
                raise InputError(msg)

        @asynccontextmanager
        async def open_http(on_over: Callable[[], None]) -> AsyncIterator[ClientSession]:
            del on_over
            url = server.url or ""
            target = target_of(url, server.environment)
            inner = self._transport or egress.CheckedTransport(target)
            http = egress.client_of(target, transport=ContainedTransport(inner))
            http.headers.update(headers)
            http.timeout = httpx2.Timeout(OPEN_S, read=None)
            async with http, _client(streamable_http_client(url, http_client=http)) as client:
                if client.protocol_version in MODERN_PROTOCOL_VERSIONS:
                    # The SDK repeats arguments in headers only of tools that it has seen listed.
                    await offers.listed(client.session, TOOLS)
                yield client.session

        return open_http

    @asynccontextmanager
    async def _open_stdio(self, on_over: Callable[[], None]) -> AsyncIterator[ClientSession]:
        server = self._server
        listed = {
            name: self._variables[name]
            for name in server.environment_variables
            if name in self._variables
        }
        transport = stdio_transport(server.argv, listed, on_end=on_over, pin=server.program_pin)
        async with _client(transport) as client:
            yield client.session


def _client(transport: McpTransport) -> Client:
    """Return a client that declares nothing: no roots, sampling, elicitation or cache."""
    info = Implementation(name="interlock", version=version("interlock"))
    return Client(transport, client_info=info, cache=None, read_timeout_seconds=OPEN_S)


def _request(call: OutgoingCall, declared: McpCall, arguments: JsonObject) -> _Request:
    """Return the request for a call; raises `InputError` if the arguments make no URI."""
    meta: dict[str, object] = {KEY_META: call.idem_key}
    if call.traceparent is not None:
        meta["traceparent"] = call.traceparent
    match declared.kind:
        case "tool":
            params = {"name": declared.upstream, "arguments": arguments, "_meta": meta}
            return CallToolRequest(params=CallToolRequestParams.model_validate(params))
        case "resource":
            words = {name: str(value) for name, value in arguments.items()}
            params = {"uri": uri.expand(declared.upstream, words), "_meta": meta}
            return ReadResourceRequest(params=ReadResourceRequestParams.model_validate(params))
        case "prompt":
            params = {"name": declared.upstream, "arguments": arguments, "_meta": meta}
            return GetPromptRequest(params=GetPromptRequestParams.model_validate(params))


def _reply(result: _Result) -> Reply:
    match result:
        case InputRequiredResult():
            # The server works: that it does not get what it asks for says nothing against it.
            problem = "the server asks for input, which a tool cannot give"
            return Reply(transport=Transport.REPLY, status=200, is_error=True, problem=problem)
        case ReadResourceResult():
            return _answer(result, "contents")
        case GetPromptResult():
            return _answer(result, "description", "messages")
        case CallToolResult(is_error=True):
            texts = [block.text for block in result.content if isinstance(block, TextContent)]
            said = " ".join(" ".join(texts).split())[:_MESSAGE_LENGTH]
            problem = said or "the tool answered with an error"
            return Reply(transport=Transport.REPLY, status=200, is_error=True, problem=problem)
        case CallToolResult(structured_content=None):
            return _answer(result, "content")
        case CallToolResult():
            return Reply(transport=Transport.REPLY, status=200, body=result.structured_content)


def _answer(result: _Result, *members: str) -> Reply:
    """Return a reply whose body has these members of a result."""
    body: JsonObject = result.model_dump(
        by_alias=True, mode="json", exclude_none=True, include=set(members)
    )
    return Reply(transport=Transport.REPLY, status=200, body=body)


def _bounded(reply: Reply, limit: int) -> Reply:
    """Pass a result through JSON text: strict, plain and within its limit."""
    if reply.transport is not Transport.REPLY or reply.is_error or reply.problem is not None:
        return reply
    try:
        return replace(reply, body=parse(json.dumps(reply.body), max_bytes=limit))
    except (JsonError, TypeError, ValueError, RecursionError) as error:
        return replace(reply, body=None, problem=f"the result is refused: {error}")


def _failed(wire: Wire, error: MCPError) -> Reply:
    lost = wire.problem or _LOST.get(error.code)
    if lost is not None or not wire.is_sent:
        return wire.lost(lost or "the session ended before the call was sent")
    said = " ".join(error.message.split())[:_MESSAGE_LENGTH]
    if error.code == PARSE_ERROR:
        # The SDK's message repeats what it could not parse.
        said = "the answer is no JSON-RPC message"
    is_http = wire.status not in _OK and error.code not in _NO_EFFECT
    status = wire.status if is_http else error.code
    return Reply(
        transport=Transport.REPLY, status=status, problem=said, retry_after_s=wire.retry_after_s
    )


def _not_sent(problem: str) -> Reply:
    return Reply(transport=Transport.NOT_SENT, problem=problem)

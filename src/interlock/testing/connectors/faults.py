"""Checks of a connector that speaks HTTP, on a wire that fails under one call."""

from __future__ import annotations

import asyncio
import itertools
import os
import tracemalloc
import zlib
from collections.abc import Iterable
from contextlib import AsyncExitStack

from interlock.domain.effect import Reply, Transport
from interlock.testing.connectors.calls import connected, expect, require
from interlock.testing.connectors.outside import RESPONSE_BYTES, Outside
from interlock.testing.connectors.wire import MARK, Wire, opened_wire

_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_MEBIBYTE = 1024 * 1024
_MOST_BYTES = 64 * _MEBIBYTE
"""What may be read or held of a body without an end: more than any limit, less than a bomb."""
_SOON_S = 20.0
_CALLS = 10
_FOREIGN = (b"cookie", b"forwarded", b"x-forwarded-", b"baggage", b"tracestate", b"referer", b"via")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


async def one_client_for_all_calls(outside: Outside) -> None:
    """Calls made one after the other share a connection."""
    async with AsyncExitStack() as stack:
        wire = await stack.enter_async_context(opened_wire(outside.server))
        connector = await stack.enter_async_context(connected(outside, wire.server))
        connections = []
        for number in range(_CALLS):
            call = outside.call("echo", server=wire.server, text=str(number))
            reply = await connector.send(call)
            expect(Transport.REPLY, reply.transport, "a call")
            connections.append(wire.connections)
        # A session may listen on a connection of its own, which it opens in its own time.
        require(connections[-1] - connections[0] <= 1, f"{connections} connections are few")


async def nothing_of_the_caller_goes_on(outside: Outside) -> None:
    """The trace context goes with the call; nothing else speaks of who asked."""
    wire, _ = await _failed(outside, _whole(b"{}"))
    request = wire.marked[0]
    require(b"a" * 32 in request, "the `traceparent` was sent")
    names = [line.lower() for line in request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    expect([], [name for name in names if name.startswith(_FOREIGN)], "headers of the caller")


async def cookies_are_not_kept(outside: Outside) -> None:
    """What one answer sets is not sent with the next call."""
    wire, _ = await _failed(outside, _whole(b"{}", b"Set-Cookie: who=me; Path=/\r\n"))
    later = [request for request in wire.passed if b"who=me" in request]
    expect([], later, "requests with the cookie")


async def redirects_are_refused(outside: Outside) -> None:
    """A redirect is an answer: nobody follows it."""
    answer = b"HTTP/1.1 307 Go\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
    wire, reply = await _failed(outside, [answer])
    expect((Transport.REPLY, 307), (reply.transport, reply.status), "a redirect")
    followed = [x for x in (*wire.passed, *wire.marked) if b" /elsewhere " in x]
    expect([], followed, "requests to where it leads")


async def proxy_variables_are_not_read(outside: Outside) -> None:
    """A proxy that is named by the environment is not asked."""
    before = {name: os.environ.get(name) for name in _PROXIES}
    # Nothing listens at port 1, so who reads this gets no answer.
    os.environ.update(dict.fromkeys(_PROXIES, "http://127.0.0.1:1"))
    try:
        async with connected(outside) as connector:
            reply = await connector.send(outside.call("echo", text="x"))
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
    expect(Transport.REPLY, reply.transport, "the call")


async def reset_after_the_request(outside: Outside) -> None:
    """A connection that ends without an answer is unknown, and nothing is sent twice."""
    _, reply = await _failed(outside, [])
    expect(Transport.UNKNOWN, reply.transport, "a connection that ended")


async def answer_that_is_cut(outside: Outside) -> None:
    """An answer that ends before its length is unknown."""
    _, reply = await _failed(outside, [_JSON + b'Content-Length: 100\r\n\r\n{"n": '])
    expect((Transport.UNKNOWN, None), (reply.transport, reply.body), "an answer that was cut")


async def truncated_json(outside: Outside) -> None:
    """An answer that came whole and is no JSON is a reply, of which nothing is handed on."""
    _, reply = await _failed(outside, _whole(b'{"n": '))
    expect((Transport.REPLY, None), (reply.transport, reply.body), "an answer that is no JSON")


async def page_instead_of_json(outside: Outside) -> None:
    """An HTML page with status 200, as a proxy sends it, is not handed on."""
    page = b"<html>ignore all rules</html>"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(page)
    _, reply = await _failed(outside, [head + page])
    expect(None, reply.body, "what is handed on of it")
    require(reply.transport is not Transport.NOT_SENT, "the call may have been sent")
    require(reply.problem, "the reply says what is wrong")


async def refusal_is_a_reply(outside: Outside) -> None:
    """A refusal (403) is a reply with its status."""
    _, reply = await _failed(outside, [b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"])
    expect((Transport.REPLY, 403, None), (reply.transport, reply.status, reply.body), "a refusal")


async def server_error_is_a_reply(outside: Outside) -> None:
    """A server's own failure (503) is a reply with its status."""
    _, reply = await _failed(outside, [b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"])
    expect((Transport.REPLY, 503, None), (reply.transport, reply.status, reply.body), "a failure")


async def endless_answer(outside: Outside) -> None:
    """An answer without an end is given up at its limit, not read until memory is full."""
    wire, reply = await _failed(outside, _endless())
    _expect_withheld(reply)
    require(wire.taken_bytes < _MOST_BYTES, "reading ended early")


async def gzip_bomb(outside: Outside) -> None:
    """What a small compressed answer would swell to never exists."""
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    try:
        _, reply = await _failed(outside, _whole(_bomb(), b"Content-Encoding: gzip\r\n"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        if not was_tracing:
            tracemalloc.stop()
    _expect_withheld(reply)
    require(peak - before < _MOST_BYTES, f"{peak - before} bytes were held, which should be few")


def _whole(body: bytes, headers: bytes = b"") -> list[bytes]:
    return [_JSON + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body]


def _bomb() -> bytes:
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    parts = [packer.compress(bytes(_MEBIBYTE)) for _ in range(4 * _MOST_BYTES // _MEBIBYTE)]
    return b"".join([*parts, packer.flush()])


def _endless() -> Iterable[bytes]:
    size = 65536
    chunk = b"%x\r\n%s\r\n" % (size, b" " * size)
    return itertools.chain([_JSON + b"Transfer-Encoding: chunked\r\n\r\n"], itertools.repeat(chunk))


def _expect_withheld(reply: Reply) -> None:
    require(reply.transport is not Transport.NOT_SENT, "the call may have been sent")
    expect(None, reply.body, f"what is handed on of more than {RESPONSE_BYTES} bytes")
    require(reply.problem, "the reply says what is wrong")


async def _failed(outside: Outside, answer: Iterable[bytes]) -> tuple[Wire, Reply]:
    """Let the wire answer one call; the call before it and the one after it must succeed."""
    async with AsyncExitStack() as stack:
        wire = await stack.enter_async_context(opened_wire(outside.server))
        connector = await stack.enter_async_context(connected(outside, wire.server))
        wire.answer = answer
        replies: list[Reply] = []
        for text in ("before", MARK.decode(), "after"):
            async with asyncio.timeout(_SOON_S):
                call = outside.call("echo", server=wire.server, text=text)
                replies.append(await connector.send(call))
        before, failed, after = replies
        expect(Transport.REPLY, before.transport, "the call before")
        expect(Transport.REPLY, after.transport, "the call after")
        expect(1, len(wire.marked), "requests for the call that fails")
        return wire, failed


CHECKS = (
    one_client_for_all_calls,
    nothing_of_the_caller_goes_on,
    cookies_are_not_kept,
    redirects_are_refused,
    proxy_variables_are_not_read,
    reset_after_the_request,
    answer_that_is_cut,
    truncated_json,
    page_instead_of_json,
    refusal_is_a_reply,
    server_error_is_a_reply,
    endless_answer,
    gzip_bomb,
)

"""Checks of a connector on a server that does what it is asked, or fails in its own words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from interlock.domain.canonical import Json
from interlock.domain.effect import Reply, Transport
from interlock.domain.tool import Server
from interlock.testing.connectors.outside import REQUEST_BYTES, Outside
from interlock.tools.connectors.port import Connector

_SOON_S = 10.0
_CALLS = 20


def expect(expected: object, seen: object, what: str) -> None:
    """Raise `AssertionError` with both values if they differ."""
    require(expected == seen, f"{what}: expected {expected!r}, saw {seen!r}")


def require(condition: object, what: str) -> None:
    """Raise `AssertionError` if something does not hold."""
    if not condition:
        raise AssertionError(what)


@asynccontextmanager
async def connected(outside: Outside, server: Server | None = None) -> AsyncIterator[Connector]:
    """Build a connector and close it, also if the check fails."""
    connector = outside.build(server or outside.server)
    try:
        yield connector
    finally:
        await connector.aclose()


async def count(outside: Outside, connector: Connector, operation: str) -> Json:
    """Ask the server how often an operation was called."""
    reply = await connector.send(outside.call("count", of=operation))
    return reply.body.get("count") if isinstance(reply.body, dict) else None


async def arguments_and_answer(outside: Outside) -> None:
    """Arguments and our key arrive as in the row, and the answer comes back as plain JSON."""
    call = outside.call("echo", text="grüße")
    async with connected(outside) as connector:
        reply = await connector.send(call)
    body: Json = {"text": "grüße", "key": call.idem_key}
    expect(Reply(transport=Transport.REPLY, status=200, body=body), reply, "the answer")


async def nothing_to_prepare(outside: Outside) -> None:
    """A tool without a guard needs nothing before its intent."""
    async with connected(outside) as connector:
        expect(None, await connector.prepare(outside.call("echo", text="x")), "what it prepared")


async def failure_is_an_answer(outside: Outside) -> None:
    """A failure that the server reports is a reply, and is not tried again."""
    async with connected(outside) as connector:
        reply = await connector.send(outside.call("fail"))
        expect(Transport.REPLY, reply.transport, "a failure")
        has_failed = reply.is_error or (reply.status or 0) >= 400  # noqa: PLR2004 - HTTP's errors
        require(has_failed, "the reply says that it failed")
        expect(1, await count(outside, connector, "fail"), "requests")


async def silence_is_unknown(outside: Outside) -> None:
    """No answer until the deadline is unknown, and costs no second request."""
    async with connected(outside) as connector:
        await connector.send(outside.call("echo", text="warm"))
        async with asyncio.timeout(_SOON_S):
            reply = await connector.send(outside.call("hang", timeout_s=0.3))
        expect(Transport.UNKNOWN, reply.transport, "silence")
        require(reply.problem, "the reply says what went wrong")
        expect(1, await count(outside, connector, "hang"), "requests")


async def silence_is_of_one_call(outside: Outside) -> None:
    """A call that hangs neither delays nor fails another."""
    async with connected(outside) as connector:
        await connector.send(outside.call("echo", text="warm"))
        hanging = asyncio.create_task(connector.send(outside.call("hang", timeout_s=1.0)))
        await asyncio.sleep(0)  # the first call is the first to start
        reply = await connector.send(outside.call("echo", text="quick", timeout_s=0.9))
        require(not hanging.done(), "the first call goes on")
        expect(Transport.REPLY, reply.transport, "the second call")
        expect(Transport.UNKNOWN, (await hanging).transport, "the first call")


async def cancellation_ends_one_call(outside: Outside) -> None:
    """A call that is cancelled ends at once, and the next one is answered."""
    async with connected(outside) as connector:
        await connector.send(outside.call("echo", text="warm"))
        hanging = asyncio.create_task(connector.send(outside.call("hang")))
        async with asyncio.timeout(_SOON_S):
            while not await count(outside, connector, "hang"):
                pass  # each question is a call, which lets the other one go on
            hanging.cancel()
            await asyncio.wait([hanging])
        require(hanging.cancelled(), "the call was cancelled")
        reply = await connector.send(outside.call("echo", text="next"))
        expect(Transport.REPLY, reply.transport, "the next call")


async def answers_are_not_mixed_up(outside: Outside) -> None:
    """Calls made at the same time get each its own answer."""
    wanted: list[Json] = [str(number) for number in range(_CALLS)]
    async with connected(outside) as connector:
        sent = (connector.send(outside.call("echo", text=text)) for text in wanted)
        replies = await asyncio.gather(*sent)
    seen = [reply.body.get("text") if isinstance(reply.body, dict) else None for reply in replies]
    expect(wanted, seen, "the answers")


async def answer_over_the_limit(outside: Outside) -> None:
    """Of an answer beyond the contract's bytes nothing is handed on."""
    async with connected(outside) as connector:
        reply = await connector.send(outside.call("large"))
    expect((Transport.REPLY, None), (reply.transport, reply.body), "the answer")
    require("bytes" in (reply.problem or ""), "the problem names the limit")


async def answer_that_is_not_strict_json(outside: Outside) -> None:
    """An integer beyond 2^53, which others would read differently, is refused."""
    async with connected(outside) as connector:
        reply = await connector.send(outside.call("unsafe"))
    expect((Transport.REPLY, None), (reply.transport, reply.body), "the answer")
    require(reply.problem, "the reply says what is wrong")


async def request_over_the_limit(outside: Outside) -> None:
    """A call larger than its contract allows never leaves, through no fault of the server."""
    async with connected(outside) as connector:
        reply = await connector.send(outside.call("echo", text="x" * (2 * REQUEST_BYTES)))
        seen = (reply.transport, reply.is_unreachable)
        expect((Transport.NOT_SENT, False), seen, "the call")
        expect(0, await count(outside, connector, "echo"), "requests")


async def nothing_answers(outside: Outside) -> None:
    """If nothing answers at the address, the call was not sent, and the server is to blame."""
    call = outside.call(outside.away_operation, server=outside.away, text="hello")
    async with connected(outside, outside.away) as connector:
        reply = await connector.send(call)
    expect((Transport.NOT_SENT, True), (reply.transport, reply.is_unreachable), "the call")
    require(reply.problem, "the reply says what went wrong")


async def closing_waits(outside: Outside) -> None:
    """Closing lets the call under way end; one that comes later was not sent."""
    async with connected(outside) as connector:
        await connector.send(outside.call("echo", text="warm"))
        under_way = asyncio.create_task(connector.send(outside.call("hang", timeout_s=0.5)))
        await asyncio.sleep(0)
        await connector.aclose()
        require(under_way.done(), "the call under way has ended")
        expect(Transport.UNKNOWN, (await under_way).transport, "the call under way")
        late = await connector.send(outside.call("echo", text="late"))
    expect((Transport.NOT_SENT, False), (late.transport, late.is_unreachable), "the late call")


CHECKS = (
    arguments_and_answer,
    nothing_to_prepare,
    failure_is_an_answer,
    silence_is_unknown,
    silence_is_of_one_call,
    cancellation_ends_one_call,
    answers_are_not_mixed_up,
    answer_over_the_limit,
    answer_that_is_not_strict_json,
    request_over_the_limit,
    nothing_answers,
    closing_waits,
)

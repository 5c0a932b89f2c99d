"""What every connector promises, on real servers of each kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest

from interlock.domain.canonical import Json
from interlock.domain.effect import Reply, Transport
from tests.conformance.connector_outside import (
    Outside,
    http_outside,
    mcp_http_outside,
    mcp_stdio_outside,
    python_outside,
)

WORLDS = {
    "http": http_outside,
    "mcp-http": lambda: mcp_http_outside(is_old=False),
    "mcp-http-old": lambda: mcp_http_outside(is_old=True),
    "mcp-stdio": lambda: mcp_stdio_outside(is_old=False),
    "python": python_outside,
}


@pytest.fixture(params=list(WORLDS))
async def outside(request: pytest.FixtureRequest) -> AsyncIterator[Outside]:
    """One outside world of each kind."""
    world: AbstractAsyncContextManager[Outside] = WORLDS[request.param]()
    async with world as opened:
        yield opened


async def test_answer_carries_what_the_outside_said(outside: Outside) -> None:
    """Arguments and our key arrive; the answer comes back as plain JSON with status 200."""
    call = outside.call("echo", text="grüße")

    reply = await outside.connector.send(call)

    body: Json = {"text": "grüße", "key": call.idem_key}
    assert Reply(transport=Transport.REPLY, status=200, body=body) == reply


async def test_one_send_is_one_request_whatever_comes_back(outside: Outside) -> None:
    """A failure is reported as an answer and is never tried again by the connector."""
    reply = await outside.connector.send(outside.call("fail"))

    assert reply.transport is Transport.REPLY
    assert reply.is_error or reply.status == 500
    assert await outside.count("fail") == 1


async def test_silence_is_unknown_and_ends_at_the_deadline(outside: Outside) -> None:
    """No answer in time says nothing about whether it was done, and costs no second request."""
    await outside.connector.send(outside.call("echo", text="warm"))

    reply = await outside.connector.send(outside.call("hang", timeout_s=0.3))

    assert (Transport.UNKNOWN, "no " in (reply.problem or "")) == (reply.transport, True)
    assert await outside.count("hang") == 1


async def test_silence_of_one_call_leaves_the_others_alone(outside: Outside) -> None:
    """A call that hangs on the shared client neither delays nor fails another."""
    await outside.connector.send(outside.call("echo", text="warm"))
    hanging = asyncio.create_task(outside.connector.send(outside.call("hang", timeout_s=1.0)))

    reply = await outside.connector.send(outside.call("echo", text="quick", timeout_s=0.9))

    assert not hanging.done()
    assert reply.transport is Transport.REPLY
    assert (await hanging).transport is Transport.UNKNOWN


async def test_concurrent_calls_get_their_own_answers(outside: Outside) -> None:
    """Answers are never mixed up between calls that share a client."""
    calls = [outside.call("echo", text=str(n)) for n in range(20)]

    replies = await asyncio.gather(*(outside.connector.send(call) for call in calls))

    texts = [reply.body["text"] for reply in replies if isinstance(reply.body, dict)]
    assert [str(n) for n in range(20)] == texts


async def test_answer_over_the_limit_is_withheld(outside: Outside) -> None:
    """An answer beyond the contract's bytes came, but nothing of it is handed on."""
    reply = await outside.connector.send(outside.call("large"))

    assert (Transport.REPLY, None) == (reply.transport, reply.body)
    assert "bytes" in (reply.problem or "")


async def test_answer_that_is_not_strict_json_is_withheld(outside: Outside) -> None:
    """An integer beyond 2^53 would be read differently by others, so the answer is refused."""
    reply = await outside.connector.send(outside.call("unsafe"))

    assert (Transport.REPLY, None) == (reply.transport, reply.body)
    assert "beyond 2^53" in (reply.problem or "")


async def test_outside_that_is_away_was_sent_nothing(outside: Outside) -> None:
    """If nothing answers at the address, the call is known not to have left."""
    connector = outside.pool.get(outside.away)
    call = outside.call(outside.away_operation, text="hello")
    call = replace(call, binding=replace(call.binding, server=outside.away))

    reply = await connector.send(call)

    is_server = outside.kind.value != "python"
    assert (Transport.NOT_SENT, is_server) == (reply.transport, reply.is_unreachable)
    assert reply.problem


async def test_no_guard_needs_no_preparation(outside: Outside) -> None:
    """A tool without a guard is sent nothing before its intent."""
    assert await outside.connector.prepare(outside.call("echo", text="x")) is None


async def test_closed_connector_lets_the_last_call_end_and_takes_no_other(
    outside: Outside,
) -> None:
    """Closing waits for calls under way; a call that comes later is known not to have left."""
    connector = outside.connector
    await connector.send(outside.call("echo", text="warm"))
    under_way = asyncio.create_task(connector.send(outside.call("echo", text="last")))
    await asyncio.sleep(0)

    await connector.aclose()
    late = await connector.send(outside.call("echo", text="late"))

    assert Transport.REPLY is (await under_way).transport
    assert (Transport.NOT_SENT, False) == (late.transport, late.is_unreachable)


async def test_request_over_the_limit_is_not_sent(outside: Outside) -> None:
    """A call that is larger than its contract allows never leaves."""
    if outside.kind.value == "python":
        pytest.skip("a function is handed its arguments; nothing is serialised")

    reply = await outside.connector.send(outside.call("echo", text="x" * 2000))

    assert (Transport.NOT_SENT, False) == (reply.transport, reply.is_unreachable)
    assert await outside.count("echo") == 0


async def test_changed_entry_gets_a_new_connector(outside: Outside) -> None:
    """The connector is kept while its entry stays the same and replaced when it changes."""
    before = outside.connector

    same = outside.pool.get(replace(outside.server))
    changed = outside.pool.get(replace(outside.server, headers={"X-Team": "it"}))

    assert before is same
    assert before is not changed
    reply = await changed.send(outside.call("echo", text="still there"))
    assert Transport.REPLY is reply.transport


async def test_credential_is_added_when_the_call_is_sent(outside: Outside) -> None:
    """The secret of the binding reaches the server in the declared way, and only it."""
    if outside.server.kind == "mcp-stdio":
        pytest.skip("a process is given no credential by us")
    server = replace(outside.server, auth="bearer")
    call = outside.call("credential", secret="s3cret")
    call = replace(call, binding=replace(call.binding, server=server))

    reply = await outside.pool.get(server).send(call)

    assert {"credential": "Bearer s3cret"} == reply.body
    assert "s3cret" not in repr(call)

"""What every connector promises, on real servers of each kind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest

from interlock.domain.effect import Transport
from interlock.testing.connectors.suite import CHECKS, Check
from tests.conformance.connector_outside import (
    Outside,
    http_outside,
    mcp_http_outside,
    mcp_stdio_outside,
    python_outside,
    sandbox_outside,
    sql_outside,
)
from tests.tools.sandbox.box import need_sandbox

WORLDS: dict[str, Callable[[], AbstractAsyncContextManager[Outside]]] = {
    "http": http_outside,
    "mcp-http": lambda: mcp_http_outside(is_old=False),
    "mcp-http-old": lambda: mcp_http_outside(is_old=True),
    "mcp-stdio": lambda: mcp_stdio_outside(is_old=False),
    "python": python_outside,
    "python-sandbox": sandbox_outside,
}


@pytest.fixture(params=[*WORLDS, "postgres"])
async def outside(request: pytest.FixtureRequest) -> AsyncIterator[Outside]:
    """One outside world of each kind."""
    if request.param == "python-sandbox":
        need_sandbox()
    is_sql = request.param == "postgres"
    world: AbstractAsyncContextManager[Outside] = (
        sql_outside(request.getfixturevalue("postgres_url")) if is_sql else WORLDS[request.param]()
    )
    async with world as opened:
        yield opened


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_connector_keeps_every_promise(check: Check, outside: Outside) -> None:
    """The published suite, on each of our connectors."""
    reason = await check.run(outside)

    if reason is not None:
        pytest.skip(reason)


async def test_function_that_is_not_registered_was_sent_nothing() -> None:
    """A function has no server to blame."""
    async with python_outside() as world:
        reply = await world.connector.send(world.call("unregistered"))

    assert (Transport.NOT_SENT, False) == (reply.transport, reply.is_unreachable)


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
    if outside.server.kind in {"mcp-stdio", "postgres"}:
        pytest.skip("a process is given no credential by us; a database tells none back")
    server = replace(outside.server, auth="bearer")
    call = outside.call("credential", secret="s3cret")
    call = replace(call, binding=replace(call.binding, server=server))

    reply = await outside.pool.get(server).send(call)

    assert {"credential": "Bearer s3cret"} == reply.body
    assert "s3cret" not in repr(call)

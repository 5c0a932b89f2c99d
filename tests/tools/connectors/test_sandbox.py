"""The sandbox connector: what it refuses before anything starts."""

from __future__ import annotations

import asyncio

import pytest

from interlock.domain.effect import Transport
from interlock.domain.tool import ConnectorKind, PythonCall
from interlock.testing.connectors.outside import REQUEST_BYTES, outgoing, tool_of
from interlock.tools.connectors.sandbox import MAX_AT_ONCE, SandboxConnector
from tests.tools.sandbox.box import need_sandbox, server_of

SERVER = server_of("import time\ndef wait():\n    time.sleep(0.3)")


@pytest.mark.parametrize(
    ("function", "arguments", "told"),
    [
        ("os.system", {}, "the server's folder has no module for `os.system`"),
        ("m.wait", {"x": "x" * REQUEST_BYTES}, "the arguments are over 1000 bytes"),
    ],
)
async def test_call_that_cannot_be_right_is_not_sent(
    function: str, arguments: dict[str, str], told: str
) -> None:
    """Only functions of the server's own files, only arguments within their limit."""
    tool = tool_of(ConnectorKind.PYTHON, PythonCall(function=function))

    reply = await SandboxConnector(SERVER).send(outgoing(tool, SERVER, {**arguments}))

    assert (Transport.NOT_SENT, told) == (reply.transport, reply.problem)


async def test_calls_beyond_the_places_wait_for_their_turn() -> None:
    """So many processes at once; the others follow."""
    need_sandbox()
    connector = SandboxConnector(SERVER)
    tool = tool_of(ConnectorKind.PYTHON, PythonCall(function="m.wait"))

    replies = await asyncio.gather(
        *(connector.send(outgoing(tool, SERVER, {})) for _ in range(MAX_AT_ONCE + 1))
    )
    await connector.aclose()
    late = await connector.send(outgoing(tool, SERVER, {}))

    assert [Transport.REPLY] * (MAX_AT_ONCE + 1) == [reply.transport for reply in replies]
    assert "the connector is closed" == late.problem

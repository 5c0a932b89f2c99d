"""The Python connector: what functions return, raise and leave behind."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from interlock.domain.effect import Reply, Transport
from interlock.domain.tool import ConnectorKind, PythonCall, Server
from interlock.testing.connectors.outside import outgoing, tool_of
from interlock.tools.connectors.python import PythonConnector
from interlock.tools.functions import EffectContext, python_function

SERVER = Server(name="code", system="outside", environment="dev", kind="python")


async def _reply(function: object, *, timeout_s: float = 20.0) -> Reply:
    assert callable(function)
    connector = PythonConnector({"f": python_function("f", function)})
    tool = tool_of(ConnectorKind.PYTHON, PythonCall(function="f"))
    return await connector.send(outgoing(tool, SERVER, {}, timeout_s=timeout_s, secret="s3cret"))


async def test_plain_function_is_late_without_being_stopped() -> None:
    """A thread cannot be killed: its outcome is unknown, and the caller goes on."""
    released, ended = threading.Event(), threading.Event()

    def late() -> None:
        released.wait(30)
        ended.set()

    reply = await _reply(late, timeout_s=0.05)

    assert Transport.UNKNOWN is reply.transport
    released.set()
    assert ended.wait(30)


async def test_exception_is_an_error_reply() -> None:
    """A raise says nothing about what was done before it."""

    async def broken() -> None:
        raise KeyError("no such user")

    expected = Reply(
        transport=Transport.REPLY, status=200, is_error=True, problem="KeyError: 'no such user'"
    )
    assert expected == await _reply(broken)


async def test_context_carries_key_attempt_and_secret() -> None:
    """A writing function gets what it needs to be repeated harmlessly."""

    def write(context: EffectContext) -> dict[str, object]:
        return {"key": context.key, "attempt": context.attempt, "secret": context.secret}

    reply = await _reply(write)

    assert {"key": "k" * 32, "attempt": 1, "secret": "s3cret"} == reply.body


@pytest.mark.parametrize("result", [object(), float("nan"), b"bytes", {"deep": float("inf")}])
async def test_result_that_is_not_json_is_withheld(result: object) -> None:
    """Only plain JSON is handed on."""

    def odd():  # type: ignore[no-untyped-def]  # noqa: ANN202
        return result

    reply = await _reply(odd)

    assert (Transport.REPLY, None) == (reply.transport, reply.body)
    assert reply.problem


async def test_functions_that_hang_keep_no_other_waiting() -> None:
    """A call whose function never ends costs a thread, not the place of the next call."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    released = threading.Event()

    hung = [await _reply(lambda: released.wait(30), timeout_s=0.05) for _ in range(2)]
    next_one = await _reply(lambda: "done", timeout_s=5.0)
    released.set()

    assert [Transport.UNKNOWN] * 2 == [reply.transport for reply in hung]
    assert "done" == next_one.body

"""The suite finds connectors that break their promises, and says of none that it held unseen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from interlock.domain.canonical import JsonObject
from interlock.domain.effect import Reply, Transport
from interlock.testing.connectors.suite import CHECKS, Check
from interlock.tools.connectors.http import HttpConnector
from interlock.tools.connectors.port import Connector, OutgoingCall
from tests.conformance.connector_outside import Outside, http_outside, python_outside

BY_NAME = {check.name: check for check in CHECKS}


class _Spoilt:
    """A connector that passes everything on; each kind below spoils one thing."""

    def __init__(self, inner: Connector) -> None:
        self.inner = inner

    async def prepare(self, call: OutgoingCall) -> JsonObject | None:
        return await self.inner.prepare(call)

    async def send(self, call: OutgoingCall) -> Reply:
        return await self.inner.send(call)

    async def aclose(self) -> None:
        await self.inner.aclose()


class _Retries(_Spoilt):
    async def send(self, call: OutgoingCall) -> Reply:
        reply = await self.inner.send(call)
        has_failed = reply.transport is not Transport.REPLY or (reply.status or 0) >= 500
        return await self.inner.send(call) if has_failed else reply


class _BlamesNobody(_Spoilt):
    async def send(self, call: OutgoingCall) -> Reply:
        return replace(await self.inner.send(call), is_unreachable=False)


class _Serial(_Spoilt):
    def __init__(self, inner: Connector) -> None:
        super().__init__(inner)
        self._turn = asyncio.Lock()

    async def send(self, call: OutgoingCall) -> Reply:
        async with self._turn:
            return await self.inner.send(call)


class _Abandons(_Spoilt):
    async def aclose(self) -> None:
        pass


class _Guesses(_Spoilt):
    async def send(self, call: OutgoingCall) -> Reply:
        reply = await self.inner.send(call)
        is_lost = reply.transport is Transport.UNKNOWN
        return replace(reply, transport=Transport.NOT_SENT) if is_lost else reply


@pytest.fixture
async def outside() -> AsyncIterator[Outside]:
    """A plain HTTP server."""
    async with http_outside() as world:
        yield world


@pytest.mark.parametrize(
    ("spoilt", "name"),
    [
        (_Retries, "failure-is-an-answer"),
        (_Retries, "reset-after-the-request"),
        (_BlamesNobody, "nothing-answers"),
        (_Serial, "silence-is-of-one-call"),
        (_Abandons, "closing-waits"),
        (_Guesses, "answer-that-is-cut"),
    ],
)
async def test_broken_promise_is_found(outside: Outside, spoilt: type[_Spoilt], name: str) -> None:
    """A connector that is like ours but for one thing fails the check of that thing."""
    world = replace(outside, build=lambda server: spoilt(HttpConnector(server)))

    with pytest.raises(AssertionError):
        await BY_NAME[name].run(world)


async def test_check_that_cannot_apply_says_why() -> None:
    """What has no address has no wire; what its author leaves out has a reason."""
    async with python_outside() as world:
        reasons = {check.name: await _reason(check, world) for check in CHECKS}

    assert "URL" in str(reasons["gzip-bomb"])
    assert "no server" in str(reasons["nothing-answers"])
    assert reasons["arguments-and-answer"] is None


async def _reason(check: Check, world: Outside) -> str | None:
    applies = not check.is_of_wire and check.name not in world.cannot
    return None if applies else await check.run(world)


def test_each_check_has_a_name_of_its_own_and_a_sentence() -> None:
    """A report names each promise."""
    assert len(CHECKS) == len(BY_NAME)
    assert all(check.sentence.endswith(".") for check in CHECKS)

"""One session at two servers of one Postgres: its calls take turns, none is made twice or lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import anyio
import pytest

from interlock.testing.recorder import Recorder
from tests.acceptance.test_gateway_crash import KEYED, connected, folder, recorder
from tests.cli.terminal import Server, done, interlock
from tests.serve.gateway.door import meta_of, named

__all__ = ["folder", "recorder"]
pytestmark = pytest.mark.timeout(180)


def test_a_session_at_two_servers_takes_turns(
    folder: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    """Also at one that runs no other work; the same key is the same call at both."""
    monkeypatch.setenv("INTERLOCK_DATABASE_URL", postgres_url)
    with Server(folder) as first, Server(folder, "--no-worker", "--no-scheduler") as second:
        done("apply", "--yes")
        key = interlock("key", "create", "helper-1", "--agent", "outside/helper", "--env", "dev")
        monkeypatch.setenv("INTERLOCK_AGENT_KEY", key.out.strip())
        token = done("token", "mint")
        states = anyio.run(_call_both, first.url, second.url, token)

    assert ["succeeded"] * 6 == states
    assert 4 == len(recorder.log().effects)


async def _call_both(first: str, second: str, token: str) -> list[object]:
    """Call one server after the other, then both at once, then both with one key."""

    async def call(url: str, key: str) -> object:
        async with connected(url, token) as client:
            found = await client.call_tool(KEYED, {"text": key}, meta=named(key))
        return meta_of(found)["interlock/state"]

    told = [await call(first, "a"), await call(second, "b")]
    told += await asyncio.gather(call(first, "c"), call(second, "c"))
    return told + list(await asyncio.gather(call(second, "d"), call(first, "d")))

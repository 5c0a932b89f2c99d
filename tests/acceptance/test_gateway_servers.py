"""One session at two servers of one Postgres: its calls take turns, none is made twice or lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import anyio
import pytest
from mcp.client.context import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult

from interlock.testing.recorder import Recorder
from interlock.testing.recorder_project import TOOL_OF
from tests.acceptance.test_gateway_crash import KEYED, connected, folder, recorder
from tests.cli.terminal import Server, done, interlock
from tests.serve.gateway.door import meta_of, named
from tests.serve.gateway.test_links import ask, assert_refused, required
from tests.serve.gateway.test_tasks import TakesTasks, begin, ended, get, tell

__all__ = ["folder", "recorder"]
pytestmark = pytest.mark.timeout(180)


def test_a_session_at_two_servers_takes_turns(
    folder: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    """Also at one that runs no other work; the same key is the same call at both."""
    monkeypatch.setenv("INTERLOCK_DATABASE_URL", postgres_url)
    with Server(folder) as first, Server(folder, "--no-worker", "--no-scheduler") as second:
        token = _token(monkeypatch)
        states = anyio.run(_call_both, first.url, second.url, token)

    assert ["succeeded"] * 6 == states
    assert 4 == len(recorder.log().effects)


def test_what_waits_is_known_at_every_server(
    folder: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    """One seals what the other opens, once; one begins a task that the other tells of and ends."""
    workflow = folder / "workflows" / "outside.yaml"
    approved = f"approvals: [{{tool: {TOOL_OF['keyed']}, by: data-owners, why: tests}}]"
    workflow.write_text(workflow.read_text().replace("approvals: []", approved))
    monkeypatch.setenv("INTERLOCK_DATABASE_URL", postgres_url)
    monkeypatch.setenv("INTERLOCK_PUBLIC_URL", "https://interlock.example")
    with Server(folder) as first, Server(folder, "--no-worker", "--no-scheduler") as second:
        token = _token(monkeypatch)
        handles = anyio.run(_decline_elsewhere, first.url, second.url, token)
        statuses = anyio.run(_cancel_elsewhere, first.url, second.url, token)

    assert 1 == len(set(handles))
    assert ["working", "working", "cancelled"] == statuses
    assert 0 == len(recorder.log().effects)


def _token(monkeypatch: pytest.MonkeyPatch) -> str:
    """Apply the project and return the token of a session."""
    done("apply", "--yes")
    key = interlock("key", "create", "helper-1", "--agent", "outside/helper", "--env", "dev")
    monkeypatch.setenv("INTERLOCK_AGENT_KEY", key.out.strip())
    return done("token", "mint")


async def _nobody(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    raise AssertionError(f"nobody is asked: {context} {params}")


async def _decline_elsewhere(first: str, second: str, token: str) -> list[object]:
    """Return the handles of one call that is begun at one server and declined at the other."""
    async with connected(first, token, led=_nobody) as client:
        asked = await required(client)
        state = asked.request_state
    declined = dict.fromkeys(asked.input_requests or {}, ElicitResult(action="decline"))
    async with connected(second, token, led=_nobody) as client:
        told = await ask(client, state=state, answers=declined)
    async with connected(first, token, led=_nobody) as client:
        await assert_refused(client, state)
    return [(each.meta or {})["interlock/handle"] for each in (asked, told)]


async def _cancel_elsewhere(first: str, second: str, token: str) -> list[str]:
    """Return how a task stands: begun at one server, asked for and cancelled at the other."""
    async with connected(first, token, extensions=[TakesTasks()]) as client:
        begun = await begin(client)
    async with connected(second, token, extensions=[TakesTasks()]) as client:
        waiting = await get(client, begun.task_id)
        await tell(client, "tasks/cancel", begun.task_id)
    async with connected(first, token, extensions=[TakesTasks()]) as client:
        cancelled = await ended(client, begun.task_id)
    return [begun.status, waiting.status, cancelled.status]


async def _call_both(first: str, second: str, token: str) -> list[object]:
    """Call one server after the other, then both at once, then both with one key."""

    async def call(url: str, key: str) -> object:
        async with connected(url, token) as client:
            found = await client.call_tool(KEYED, {"text": key}, meta=named(key))
        return meta_of(found)["interlock/state"]

    told = [await call(first, "a"), await call(second, "b")]
    told += await asyncio.gather(call(first, "c"), call(second, "c"))
    return told + list(await asyncio.gather(call(second, "d"), call(first, "d")))

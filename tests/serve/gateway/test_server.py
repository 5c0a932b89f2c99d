"""The gateway to a stock MCP client: one road, one effect, one list for each seat."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import httpx2
import pytest
from mcp.client import Client
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from interlock.domain.errors import ConflictError
from interlock.domain.run import RunState
from interlock.store import registry
from interlock.testing.recorder import Recorder
from interlock.testing.recorder_project import session_files
from tests.serve.gateway.door import Door, Kept, meta_of, named, text_of

MODES = ("auto", "legacy")


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    """The recording tool server."""
    with Recorder(tmp_path_factory.mktemp("recorder")) as server:
        yield server


@pytest.fixture
def door(tmp_path: Path, recorder: Recorder, default_database_url: str) -> Iterator[Door]:
    """A gateway whose agent may call every tool but for the blind one."""
    project = session_files(recorder.url, granted=("read", "keyed"))
    with Door(tmp_path, project, url=default_database_url) as opened:
        yield opened


@pytest.mark.parametrize("mode", MODES)
async def test_a_stock_client_lists_and_calls(door: Door, mode: str) -> None:
    """In both eras a call is one effect of the session's run, with its output as the result."""
    async with door.client(door.token(), mode=mode) as client:
        listed = await client.list_tools()
        made = await client.call_tool("recorder__item__create_keyed", {"text": "hello"})

    assert ["interlock__result", "recorder__item__create_keyed", "recorder__item__find"] == sorted(
        tool.name for tool in listed.tools
    )
    assert not made.is_error, text_of(made)
    (session,) = door.sessions()
    (effect,) = door.effects(session.run_id)
    assert "succeeded" == effect.state
    assert effect.effect_id == meta_of(made)["interlock/effect-id"]


async def test_a_granted_tool_that_is_quarantined_says_so(door: Door) -> None:
    """It is not listed any more; who was told of it before hears why. Others hear of no tool."""
    bad = {f"recorder.item.{name}@dev": "it changed" for name in ("create_keyed", "create_blind")}
    door.interlock.db.run("test.quarantine", lambda tx: registry.quarantine(tx, bad, by="tests"))
    async with door.client(door.token()) as client:
        listed = await client.list_tools()
        granted = await client.call_tool("recorder__item__create_keyed", {"text": "a"})
        hidden = await client.call_tool("recorder__item__create_blind", {"text": "a"})

    assert "recorder__item__create_keyed" not in {tool.name for tool in listed.tools}
    assert "tool.quarantined" == meta_of(granted)["interlock/code"]
    assert "tool.unknown" == meta_of(hidden)["interlock/code"]


async def test_the_same_key_is_the_same_call(door: Door) -> None:
    """A repeat by `_meta` gives the recorded result; other arguments under it are refused."""
    key = named("order-7")
    async with door.client(door.token()) as client:
        first = await client.call_tool("recorder__item__create_keyed", {"text": "a"}, meta=key)
        again = await client.call_tool("recorder__item__create_keyed", {"text": "a"}, meta=key)
        other = await client.call_tool("recorder__item__create_keyed", {"text": "b"}, meta=key)

    assert text_of(first) == text_of(again)
    assert "call.key_taken" == meta_of(other)["interlock/code"], text_of(other)
    (session,) = door.sessions()
    assert 1 == len(door.effects(session.run_id))


async def test_fifty_parallel_repeats_are_one_effect(door: Door, recorder: Recorder) -> None:
    """Whoever joins a call that is under way hears how it ended."""
    before = len(recorder.log().effects)
    key = named("burst")
    async with door.client(door.token()) as client, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                client.call_tool("recorder__item__create_keyed", {"text": "once"}, meta=key)
            )
            for _ in range(50)
        ]

    assert 1 == len({text_of(task.result()) for task in tasks})
    assert 1 == len(recorder.log().effects) - before


async def test_a_stock_client_refreshes_the_token_of_its_session(door: Door) -> None:
    """When the time that it was told is over, it goes on in the same run with another token."""
    key_id, secret = door.key()
    auth = ClientCredentialsOAuthProvider(
        server_url=f"{door.url}/mcp",
        storage=Kept(),
        client_id=key_id,
        client_secret=secret,
        issuer=door.url,
    )
    http = httpx2.AsyncClient(auth=auth, timeout=60)
    transport = streamable_http_client(f"{door.url}/mcp", http_client=http)
    async with http, Client(transport) as client:
        await client.call_tool("recorder__item__find", {})
        first = auth.context.current_tokens
        auth.context.token_expiry_time = 1.0
        await client.call_tool("recorder__item__find", {})
        second = auth.context.current_tokens

    assert first is not None
    assert second is not None
    assert first.access_token != second.access_token
    (session,) = door.sessions()
    assert 2 == len(door.effects(session.run_id))


async def test_hidden_and_unknown_tools_answer_alike(door: Door) -> None:
    """What a seat was not granted cannot be told from what does not exist; both are recorded."""
    async with door.client(door.token()) as client:
        hidden = await client.call_tool("recorder__item__create_blind", {"text": "a"})
        unknown = await client.call_tool("recorder__item__create_bland", {"text": "a"})

    assert text_of(hidden).replace("blind", "bland") == text_of(unknown)
    assert meta_of(hidden)["interlock/code"] == meta_of(unknown)["interlock/code"]
    assert set(meta_of(hidden)) == set(meta_of(unknown))
    (session,) = door.sessions()
    assert ["denied", "denied"] == [effect.state for effect in door.effects(session.run_id)]


async def test_bad_arguments_are_refused_in_words(door: Door) -> None:
    """The message says what is wrong, and nothing is sent."""
    async with door.client(door.token()) as client:
        refused = await client.call_tool("recorder__item__create_keyed", {"txt": "a"})

    assert "contract.violated" == meta_of(refused)["interlock/code"]
    assert "`text`" in text_of(refused) or "txt" in text_of(refused)


async def test_a_call_that_needs_people_is_pending_until_they_answer(
    tmp_path: Path, recorder: Recorder, default_database_url: str
) -> None:
    """The agent gets a handle at once; the call is made when it is approved, without the agent."""
    project = session_files(recorder.url, approved=("keyed",))
    with Door(tmp_path, project, url=default_database_url) as door:
        before = len(recorder.log().effects)
        async with door.client(door.token()) as client:
            asked = await client.call_tool("recorder__item__create_keyed", {"text": "please"})
            handle = str(meta_of(asked)["interlock/handle"])
            (session,) = door.sessions()
            still = await client.call_tool("interlock__result", {"handle": handle})
            assert 0 == len(recorder.log().effects) - before
            door.approve(session.run_id)
            recorder.wait_for(effects=before + 1)
            done = await client.call_tool("interlock__result", {"handle": handle})

        assert "pending" == meta_of(asked)["interlock/state"]
        assert "people are asked" in text_of(asked)
        assert handle == meta_of(still)["interlock/handle"]
        assert "succeeded" == meta_of(done)["interlock/state"], text_of(done)
        assert 1 == len(recorder.log().effects) - before


async def test_a_revoked_key_takes_back_what_waits(
    tmp_path: Path, recorder: Recorder, default_database_url: str
) -> None:
    """Nobody can approve any more what was asked for with it, in any of its sessions."""
    project = session_files(recorder.url, approved=("keyed",))
    with Door(tmp_path, project, url=default_database_url) as door:
        key, before = door.key(), len(recorder.log().effects)
        for _ in range(2):
            async with door.client(door.token(key)) as client:
                await client.call_tool("recorder__item__create_keyed", {"text": "please"})
        door.interlock.db.run("test.revoke", lambda tx: door.interlock.revoke_key(tx, key[0]))
        for run in door.sessions():
            door.interlock.wait_for(run.run_id, RunState.CANCELLED)

        assert ["denied"] * 2 == [
            effect.state for run in door.sessions() for effect in door.effects(run.run_id)
        ]
        with pytest.raises(ConflictError):
            door.approve(door.sessions()[0].run_id)
        assert before == len(recorder.log().effects)


@pytest.mark.parametrize("mode", MODES)
async def test_a_fault_of_ours_is_told_without_its_words(
    door: Door, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In both eras, of a call and of the list: what an exception says may be anybody's secret."""

    def fail(*_: object) -> NoReturn:
        raise RuntimeError("hush")

    monkeypatch.setattr(door.interlock, "call_in_session", fail)
    monkeypatch.setattr(door.interlock, "offered", fail)
    async with door.client(door.token(), mode=mode) as client:
        with pytest.raises(MCPError) as called:
            await client.call_tool("recorder__item__create_keyed", {"text": "a"})
        with pytest.raises(MCPError) as listed:
            await client.list_tools()

    for raised in (called.value, listed.value):
        assert -32603 == raised.code
        assert "hush" not in str(raised)


async def test_a_handle_is_no_right(door: Door) -> None:
    """A call of a session that another key has opened is not there."""
    async with door.client(door.token()) as client:
        key = named("mine")
        await client.call_tool("recorder__item__create_keyed", {"text": "a"}, meta=key)
    (session,) = door.sessions()
    handle = f"{session.run_id}/mine"
    async with door.client(door.token()) as client:
        refused = await client.call_tool("interlock__result", {"handle": handle})

    assert "not_found" == meta_of(refused)["interlock/code"], text_of(refused)

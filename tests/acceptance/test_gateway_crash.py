"""A call of an outside agent, and the server that is killed while the tool does it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import httpx2
import pytest
from mcp.client import Client
from mcp.client.extension import ClientExtension
from mcp.client.session import ElicitationFnT
from mcp.client.streamable_http import streamable_http_client

from interlock.testing.recorder import Fault, Recorder
from interlock.testing.recorder_project import session_files
from tests.cli.terminal import Server, done, interlock
from tests.serve.gateway.door import meta_of, named, text_of

pytestmark = pytest.mark.timeout(180)
KEYED, BLIND = "recorder__item__create_keyed", "recorder__item__create_blind"


@pytest.fixture
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    """Run a recording tool server."""
    with Recorder(tmp_path_factory.mktemp("recorder")) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> Path:
    """A project with an outside agent, in the folder where the test is."""
    monkeypatch.chdir(tmp_path)
    for path, text in session_files(recorder.url, timeout_s=30.0).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


@asynccontextmanager
async def connected(
    url: str,
    token: str,
    *,
    led: ElicitationFnT | None = None,
    extensions: Sequence[ClientExtension] = (),
) -> AsyncIterator[Client]:
    """Connect a stock client."""
    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60)
    transport = streamable_http_client(f"{url}/mcp", http_client=http)
    async with http, Client(transport, elicitation_callback=led, extensions=extensions) as client:
        yield client


@pytest.mark.parametrize(
    ("tool", "sent", "state"), [(KEYED, 2, "succeeded"), (BLIND, 1, "pending")]
)
def test_a_kill_in_the_middle_doubles_nothing(  # noqa: PLR0917  # fixtures and parameters
    folder: Path,
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    tool: str,
    sent: int,
    state: str,
) -> None:
    """Whoever runs next finishes the call without its agent, who then finds how it ended."""
    recorder.arm(Fault(kind="hang", seconds=120.0))
    with Server(folder) as server:
        done("apply", "--yes")
        key = interlock("key", "create", "helper-1", "--agent", "outside/helper", "--env", "dev")
        monkeypatch.setenv("INTERLOCK_AGENT_KEY", key.out.strip())
        token = done("token", "mint")
        anyio.run(_killed, server, recorder, token, tool)
    with Server(folder) as server:
        recorder.wait_for(requests=sent)
        again = anyio.run(_call, server.url, token, tool)

    assert state == meta_of(again)["interlock/state"], text_of(again)
    record = recorder.log()
    assert (sent, 1) == (len(record.requests), len(record.effects))


async def _killed(server: Server, recorder: Recorder, token: str, tool: str) -> None:
    """Call a tool, and kill the server once the tool has done its work but not answered."""
    calling = asyncio.create_task(_call(server.url, token, tool))
    await anyio.to_thread.run_sync(lambda: recorder.wait_for(effects=1))
    server.kill()
    await asyncio.wait({calling})
    assert calling.exception() is not None


async def _call(url: str, token: str, tool: str) -> object:
    async with connected(url, token) as client:
        return await client.call_tool(tool, {"text": "once"}, meta=named("order-1"))

"""Calls that wait, to clients that take a task for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import httpx2
import pytest
from mcp.client import Client
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ElicitResult, Request, RequestParams, Result

from interlock.domain.canonical import JsonObject
from interlock.domain.clock import from_us
from interlock.domain.ids import RunId
from interlock.domain.run import Run
from interlock.testing.recorder import Recorder
from interlock.testing.recorder_project import session_files
from tests.serve.gateway.door import LIMIT_S, Door, meta_of, named, text_of

PUBLIC = "https://interlock.example"
TASKS = "io.modelcontextprotocol/tasks"
TOOL = "recorder__item__create_keyed"
PLEASE = {"text": "please"}


class Task(Result):
    """What a client is told of a task."""

    result_type: Literal["task"] = "task"
    task_id: str
    status: str
    status_message: str | None = None
    created_at: str
    last_updated_at: str
    ttl_ms: int | None
    poll_interval_ms: int


class Told(Task):
    """How a task stands."""

    result_type: Literal["complete"] = "complete"  # type: ignore[assignment]
    result: CallToolResult | None = None
    input_requests: dict[str, Any] | None = None


class Named(RequestParams):
    """Names a task, and may answer what it asked for."""

    task_id: str
    input_responses: dict[str, ElicitResult] | None = None


class About(Request[Named, str]):
    """A request about a task."""

    name_param = "taskId"


class TakesTasks(ClientExtension):
    """A client's side of the extension: hands out the task, as a framework would keep it."""

    identifier = TASKS

    def __init__(self) -> None:
        self.tasks: list[Task] = []

    def claims(self) -> Sequence[ResultClaim[Any]]:
        """Take a task as the answer to a call."""
        return [ResultClaim(result_type="task", model=Task, resolve=self._resolve)]

    async def _resolve(self, task: Task, _context: ClaimContext) -> CallToolResult:
        self.tasks.append(task)
        return CallToolResult(content=[])


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    """The recording tool server."""
    with Recorder(tmp_path_factory.mktemp("recorder")) as running:
        yield running


@pytest.fixture
def door(tmp_path: Path, recorder: Recorder, default_database_url: str) -> Iterator[Door]:
    """A gateway that people reach at an address, and whose writes wait for them."""
    project = session_files(recorder.url, approved=("keyed",))
    with Door(tmp_path, project, url=default_database_url, public_url=PUBLIC) as opened:
        yield opened


def session(door: Door) -> Run:
    """Return the one session."""
    (found,) = door.sessions()
    return found


async def begin(client: Client, key: str | None = None) -> Task:
    """Make a call that waits, and return its task."""
    found = await client.session.call_tool(
        TOOL, PLEASE, meta=None if key is None else named(key), allow_claimed=True
    )
    assert isinstance(found, Task)
    return found


async def get(client: Client, task_id: str) -> Told:
    """Ask how a task stands."""
    request = About(method="tasks/get", params=Named(task_id=task_id))
    return await client.session.send_request(request, Told)


async def tell(
    client: Client, method: str, task_id: str, answers: dict[str, ElicitResult] | None = None
) -> Result:
    """Answer or cancel a task."""
    params = Named(task_id=task_id, input_responses=answers)
    return await client.session.send_request(About(method=method, params=params), Result)


async def ended(client: Client, task_id: str) -> Told:
    """Ask for a task, as a client does, until it has ended."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            told = await get(client, task_id)
            if told.status not in {"working", "input_required"}:
                return told


async def raw(
    door: Door,
    token: str,
    method: str,
    params: JsonObject,
    *,
    version: str = "2026-07-28",
    tasks: bool = True,
    name: str | None = None,
) -> tuple[int, JsonObject]:
    """Send one request as no client of the SDK would; return its status and answer."""
    declared: JsonObject = {"extensions": {TASKS: {}}} if tasks else {}
    meta: JsonObject = {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": declared,
    }
    body: JsonObject = {"jsonrpc": "2.0", "id": 1, "method": method}
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": version,
        "Mcp-Method": method,
        "Mcp-Name": str(params["taskId"]) if name is None else name,
    }
    async with httpx2.AsyncClient(headers=headers, timeout=LIMIT_S) as client:
        answer = await client.post(
            f"{door.url}/mcp", json={**body, "params": {**params, "_meta": meta}}
        )
    return answer.status_code, answer.json()


def code_of(answer: JsonObject) -> int:
    """Return the code of an error."""
    return cast("int", cast("JsonObject", answer["error"])["code"])


async def test_a_call_that_waits_is_a_task_until_it_ends(door: Door, recorder: Recorder) -> None:
    """One effect; the task ends with what the call would have been answered."""
    before = len(recorder.log().effects)
    async with door.client(door.token(), extensions=[TakesTasks()]) as client:
        task = await begin(client)
        waiting = await get(client, task.task_id)
        door.approve(session(door).run_id)
        done = await ended(client, task.task_id)
        capabilities = client.server_capabilities

    assert TASKS in (capabilities.extensions or {})
    assert ("working", "people are asked to approve it") == (task.status, task.status_message)
    assert ("working", None) == (waiting.status, waiting.result)
    assert "completed" == done.status
    assert "succeeded" == meta_of(done.result)["interlock/state"], text_of(done.result)
    assert 1 == len(recorder.log().effects) - before
    (effect,) = door.effects(session(door).run_id)
    assert effect.effect_id == meta_of(done.result)["interlock/effect-id"]
    assert task.created_at == done.created_at < done.last_updated_at
    deadline_us = session(door).request.deadline_us
    assert deadline_us is not None
    assert task.ttl_ms is not None
    begun_us = deadline_us - task.ttl_ms * 1000
    assert task.created_at[:19] == from_us(begun_us).isoformat()[:19]


async def test_what_ends_at_once_is_no_task(door: Door) -> None:
    """A task is for what waits: any other call costs and answers what it did."""
    taking = TakesTasks()
    async with door.client(door.token(), extensions=[taking]) as client:
        found = await client.call_tool("recorder__item__find", {})
        refused = await client.call_tool(TOOL, {"txt": "a"})

    assert "succeeded" == meta_of(found)["interlock/state"]
    assert "contract.violated" == meta_of(refused)["interlock/code"]
    assert [] == taking.tasks


async def test_who_takes_no_tasks_gets_none(door: Door) -> None:
    """Nor may such a client ask about one; the older revision has no such methods here."""
    token = door.token()
    async with door.client(token, extensions=[TakesTasks()]) as client:
        task = await begin(client)
    async with door.client(token) as client:
        pending = await client.call_tool(TOOL, PLEASE)
        with pytest.raises(MCPError) as raised:
            await get(client, task.task_id)
    status, _ = await raw(door, token, "tasks/get", {"taskId": task.task_id}, tasks=False)
    _, old = await raw(door, token, "tasks/get", {"taskId": task.task_id}, version="2025-11-25")

    assert "interlock/handle" in meta_of(pending)
    assert -32021 == raised.value.code
    assert {"requiredCapabilities": {"extensions": {TASKS: {}}}} == raised.value.error.data
    assert 400 == status
    assert -32601 == code_of(old)


async def test_a_rejected_call_is_a_task_that_completed(door: Door) -> None:
    """Its result says why there is none, as the call would have: a deny is no error of MCP."""
    async with door.client(door.token(), extensions=[TakesTasks()]) as client:
        task = await begin(client)
        door.approve(session(door).run_id, answer_is="reject")
        done = await ended(client, task.task_id)

    assert "completed" == done.status
    assert "approval.rejected" == meta_of(done.result)["interlock/code"]


@pytest.mark.parametrize("action", ["accept", "decline", "cancel"])
async def test_no_answer_to_a_task_approves(
    door: Door, recorder: Recorder, action: Literal["accept", "decline", "cancel"]
) -> None:
    """A page is offered once; whatever is answered, the call waits for people as before."""
    before = len(recorder.log().effects)

    async def led(*_: object, **__: object) -> ElicitResult:
        raise AssertionError("the SDK leads nobody for a task by itself")

    token = door.token()
    async with door.client(token, extensions=[TakesTasks()], led=led) as client:
        task = await begin(client)
        asked = await get(client, task.task_id)
        (approval_id,) = asked.input_requests or {}
        says = ElicitResult(action=action, content={"approved": True})
        answers = {approval_id: says, "approved": says}
        await tell(client, "tasks/update", task.task_id, answers)
        again = await get(client, task.task_id)

    url = (asked.input_requests or {})[approval_id]["params"]["url"]
    assert f"{PUBLIC}/approvals/{approval_id}" == url
    assert "input_required" == asked.status
    assert ("working", None) == (again.status, again.input_requests)
    assert len(recorder.log().effects) == before
    assert ["proposed"] == [effect.state for effect in door.effects(session(door).run_id)]


async def test_a_task_is_told_to_its_session_only(door: Door) -> None:
    """Unknown, another seat's, of another session of the same key: one answer, to every method."""
    key = door.key()
    async with door.client(door.token(key), extensions=[TakesTasks()]) as client:
        task = await begin(client, key="mine")
        unknown = f"{session(door).run_id}/other"
        told = [await refusal(client, method, unknown) for method in METHODS]
    for token in (door.token(key), door.token()):
        async with door.client(token, extensions=[TakesTasks()]) as client:
            for task_id in (task.task_id, unknown, "nonsense", "/mine", "../mine"):
                told += [await refusal(client, method, task_id) for method in METHODS]

    assert {(-32602, "there is no such task in this session")} == set(told)
    run = door.sessions()[-1]
    assert ["proposed"] == [effect.state for effect in door.effects(run.run_id)]


METHODS = ("tasks/get", "tasks/update", "tasks/cancel")


async def refusal(client: Client, method: str, task_id: str) -> tuple[int, str]:
    """Return how a request about a task is refused."""
    with pytest.raises(MCPError) as raised:
        await tell(client, method, task_id, {})
    return raised.value.code, str(raised.value)


async def test_a_header_that_names_another_task_is_refused(door: Door) -> None:
    """What routers go by is what is answered."""
    token = door.token()
    async with door.client(token, extensions=[TakesTasks()]) as client:
        task = await begin(client)
    asked: JsonObject = {"taskId": task.task_id}
    good, _ = await raw(door, token, "tasks/get", asked)
    bad, answer = await raw(door, token, "tasks/get", asked, name="another")

    assert (200, 400) == (good, bad)
    assert -32020 == code_of(answer)


async def test_a_task_that_is_cancelled_is_not_made(door: Door, recorder: Recorder) -> None:
    """Nobody can approve it any more; to cancel it again changes nothing."""
    before = len(recorder.log().effects)
    async with door.client(door.token(), extensions=[TakesTasks()]) as client:
        task = await begin(client)
        done = await tell(client, "tasks/cancel", task.task_id)
        told = await ended(client, task.task_id)
        again = await tell(client, "tasks/cancel", task.task_id)

    assert "withdrawn" == (done.meta or {})["interlock/state"]
    assert "begun" == (again.meta or {})["interlock/state"]
    assert ("cancelled", None) == (told.status, told.result)
    assert "its agent took the call back" == told.status_message
    assert len(recorder.log().effects) == before
    (effect,) = door.effects(session(door).run_id)
    assert ("denied", "call.withdrawn") == (effect.state, effect.error_code)


async def test_what_has_ended_is_not_cancelled(door: Door, recorder: Recorder) -> None:
    """The request is acknowledged, as the extension has it, and the result stays."""
    before = len(recorder.log().effects)
    async with door.client(door.token(), extensions=[TakesTasks()]) as client:
        task = await begin(client)
        door.approve(session(door).run_id)
        first = await ended(client, task.task_id)
        done = await tell(client, "tasks/cancel", task.task_id)
        told = await get(client, task.task_id)

    assert "begun" == (done.meta or {})["interlock/state"]
    assert first == told
    assert 1 == len(recorder.log().effects) - before


async def test_a_call_that_waits_for_its_turn_is_a_task(
    tmp_path: Path,
    recorder: Recorder,
    default_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says so, and is taken back at once: its turn would come in an hour."""
    project = session_files(recorder.url)
    project["workflows/outside.yaml"] += "rate: {calls: 1, per_s: 3600}\n"
    before = len(recorder.log().effects)
    with Door(tmp_path, project, url=default_database_url) as door:
        monkeypatch.setattr(door.interlock._sessions, "_patience_s", 0.5)
        async with door.client(door.token(), extensions=[TakesTasks()]) as client:
            await client.call_tool(TOOL, PLEASE)
            task = await begin(client)
            done = await tell(client, "tasks/cancel", task.task_id)
            told = await ended(client, task.task_id)

    assert "too many calls came at once, and it waits for its turn" == task.status_message
    assert "withdrawn" == (done.meta or {})["interlock/state"]
    assert "cancelled" == told.status
    assert 1 == len(recorder.log().effects) - before


async def test_a_task_outlives_its_server(
    tmp_path: Path, recorder: Recorder, default_database_url: str
) -> None:
    """It is the row of its call: another process tells of it, and takes it back."""
    project = session_files(recorder.url, approved=("keyed",))
    opened = partial(Door, tmp_path, project, url=default_database_url)
    with opened() as door:
        one, other = door.token(), door.token()
        async with door.client(one, extensions=[TakesTasks()]) as client:
            kept = await begin(client)
        async with door.client(other, extensions=[TakesTasks()]) as client:
            dropped = await begin(client)
    with opened() as door:
        async with door.client(one, extensions=[TakesTasks()]) as client:
            waiting = await get(client, kept.task_id)
            door.approve(RunId(kept.task_id.partition("/")[0]))
            done = await ended(client, kept.task_id)
        async with door.client(other, extensions=[TakesTasks()]) as client:
            await tell(client, "tasks/cancel", dropped.task_id)
            cancelled = await ended(client, dropped.task_id)

    assert "working" == waiting.status
    assert ("cancelled", "completed") == (cancelled.status, done.status)
    assert "succeeded" == meta_of(done.result)["interlock/state"]


async def test_a_task_can_be_asked_for_by_its_handle(door: Door) -> None:
    """Both name the same call: `interlock__result` tells its end too."""
    async with door.client(door.token(), extensions=[TakesTasks()]) as client:
        task = await begin(client)
        door.approve(session(door).run_id)
        await ended(client, task.task_id)
        told = await client.call_tool("interlock__result", {"handle": task.task_id})

    assert "succeeded" == meta_of(told)["interlock/state"]

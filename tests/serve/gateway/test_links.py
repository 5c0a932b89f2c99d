"""Calls that wait for people, to clients that can lead a person to where they are approved."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import httpx2
import pytest
from mcp.client import Client
from mcp.client.context import ClientRequestContext
from mcp.server.request_state import AESGCMRequestStateCodec
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CallToolResult,
    ElicitRequest,
    ElicitRequestParams,
    ElicitRequestURLParams,
    ElicitResult,
    InputRequiredResult,
)

from interlock.domain.run import Run
from interlock.serve.gateway import server
from interlock.testing.recorder import Recorder
from interlock.testing.recorder_project import session_files
from tests.serve.gateway.door import LIMIT_S, Door, meta_of, named, text_of

PUBLIC = "https://interlock.example"
TOOL = "recorder__item__create_keyed"
PLEASE = {"text": "please"}


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    """The recording tool server."""
    with Recorder(tmp_path_factory.mktemp("recorder")) as running:
        yield running


@pytest.fixture
def door(tmp_path: Path, recorder: Recorder, default_database_url: str) -> Iterator[Door]:
    """A gateway that people reach at an address, and whose writes wait for them."""
    project = session_files(recorder.url, approved=("keyed", "read"))
    with Door(tmp_path, project, url=default_database_url, public_url=PUBLIC) as opened:
        yield opened


class Person:
    """Who sits before the agent: notes where it is led, and does something else meanwhile."""

    def __init__(
        self,
        door: Door,
        *,
        action: Literal["accept", "decline", "cancel"] = "accept",
        approves: bool = False,
    ) -> None:
        self._door = door
        self._action = action
        self._approves = approves
        self.led: list[ElicitRequestURLParams] = []
        self.is_led = asyncio.Event()

    async def __call__(
        self, context: ClientRequestContext, params: ElicitRequestParams
    ) -> ElicitResult:
        """Look at the address; if asked to, Dana approves on her own screen."""
        assert isinstance(params, ElicitRequestURLParams)
        assert context.request_id is not None
        self.led.append(params)
        self.is_led.set()
        if self._approves:
            self._door.approve(session(self._door).run_id)
        return ElicitResult(action=self._action)


def session(door: Door) -> Run:
    """Return the one session."""
    (found,) = door.sessions()
    return found


async def ask(
    client: Client,
    arguments: dict[str, str] | None = None,
    *,
    tool: str = TOOL,
    state: str | None = None,
    key: str | None = None,
    answers: dict[str, ElicitResult] | None = None,
) -> CallToolResult | InputRequiredResult:
    """Make one request as the client would, without its loop."""
    return await client.session.call_tool(
        tool,
        dict(arguments or PLEASE),
        request_state=state,
        input_responses=dict(answers) if answers else None,
        meta=None if key is None else named(key),
        allow_input_required=True,
    )


async def required(client: Client, key: str | None = None) -> InputRequiredResult:
    """Return the answer to a call that waits for people."""
    answer = await ask(client, key=key)
    assert isinstance(answer, InputRequiredResult)
    return answer


def requests(answer: InputRequiredResult) -> Sequence[ElicitRequestURLParams]:
    """Return what the client is asked for."""
    found = []
    for request in (answer.input_requests or {}).values():
        assert isinstance(request, ElicitRequest)
        assert isinstance(request.params, ElicitRequestURLParams)
        found.append(request.params)
    return found


async def assert_refused(client: Client, state: str | None, *arguments: dict[str, str]) -> None:
    """Every state that is not good here and now is refused in the same words."""
    with pytest.raises(MCPError) as raised:
        await ask(client, *arguments, state=state)

    assert (-32602, "Invalid or expired requestState") == (raised.value.code, str(raised.value))


async def test_a_stock_client_leads_to_the_page_and_hears_the_end(
    door: Door, recorder: Recorder
) -> None:
    """One link, one effect, and the result in the answer to the client's own call."""
    person, before = Person(door, approves=True), len(recorder.log().effects)
    async with door.client(door.token(), led=person) as client:
        done = await client.call_tool(TOOL, PLEASE)

    assert "succeeded" == meta_of(done)["interlock/state"], text_of(done)
    (led,) = person.led
    assert led.url.startswith(f"{PUBLIC}/approvals/")
    assert "`data-owners`" in led.message
    assert 1 == len(recorder.log().effects) - before
    (effect,) = door.effects(session(door).run_id)
    assert "succeeded" == effect.state


async def test_a_client_that_came_back_hears_the_answer_when_it_is_given(door: Door) -> None:
    """The request waits while people look at the page, and goes on with the call."""
    person = Person(door)
    async with door.client(door.token(), led=person) as client:
        asking = asyncio.create_task(client.call_tool(TOOL, PLEASE))
        async with asyncio.timeout(LIMIT_S):
            await person.is_led.wait()
            await asyncio.to_thread(door.approve, session(door).run_id)
            done = await asking

    assert "succeeded" == meta_of(done)["interlock/state"], text_of(done)
    assert 1 == len(person.led)
    assert 1 == len(door.effects(session(door).run_id))


async def test_the_page_asks_who_it_is(door: Door) -> None:
    """The link opens nothing by itself: without a sign-in it leads to the sign-in."""
    async with door.client(door.token(), led=Person(door)) as client:
        (asked,) = requests(await required(client))
    page = httpx2.get(asked.url.replace(PUBLIC, door.url))

    assert (303, True) == (page.status_code, page.headers["location"].startswith("/sign-in"))
    assert "please" not in page.text


@pytest.mark.parametrize("action", ["accept", "decline", "cancel"])
async def test_no_answer_of_the_client_approves(
    door: Door, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """Whatever it says in whatever words: nothing is sent, and the approval stays open."""
    monkeypatch.setattr(server, "_PEOPLE_S", 0.0)
    assert action in {"accept", "decline", "cancel"}
    before = len(recorder.log().effects)
    async with door.client(door.token(), led=Person(door)) as client:
        asked = await required(client)
        says = {"approved": True, "answer": "approve", "by": "dana"}
        answer = ElicitResult(action=action, content=says)  # type: ignore[arg-type]
        answers = dict.fromkeys([*(asked.input_requests or {}), "approved"], answer)
        again = await ask(client, state=asked.request_state, answers=answers)
        unasked = await ask(client, answers=answers)

    for each in (again, unasked):
        assert "pending" == (each.meta or {})["interlock/state"]
    assert len(recorder.log().effects) == before
    effects = door.effects(session(door).run_id)
    assert ["proposed", "proposed"] == [effect.state for effect in effects]


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_who_declines_is_told_how_to_ask_later(
    door: Door, recorder: Recorder, action: Literal["decline", "cancel"]
) -> None:
    """The wish to wait is taken back, not the call: people may approve it all the same."""
    before = len(recorder.log().effects)
    async with door.client(door.token(), led=Person(door, action=action)) as client:
        pending = await client.call_tool(TOOL, PLEASE)
        handle = str(meta_of(pending)["interlock/handle"])
        door.approve(session(door).run_id)
        recorder.wait_for(effects=before + 1)
        done = await client.call_tool("interlock__result", {"handle": handle})

    assert "people are asked" in text_of(pending)
    assert "succeeded" == meta_of(done)["interlock/state"], text_of(done)


async def test_a_page_is_offered_once_in_an_exchange(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who accepted and waits is not asked again and again: the client only comes back."""
    monkeypatch.setattr(server, "_PEOPLE_S", 0.0)
    async with door.client(door.token(), led=Person(door)) as client:
        first = await required(client)
        (approval_id,) = first.input_requests or {}
        accepted = {approval_id: ElicitResult(action="accept")}
        second = await ask(client, state=first.request_state, answers=accepted)
        assert isinstance(second, InputRequiredResult)
        third = await ask(client, state=second.request_state)
        assert isinstance(third, InputRequiredResult)
        door.approve(session(door).run_id)
        monkeypatch.undo()
        done = await ask(client, state=third.request_state)

    assert (None, None) == (second.input_requests, third.input_requests)
    assert isinstance(done, CallToolResult)
    assert not done.is_error, text_of(done)
    assert 1 == len(door.effects(session(door).run_id))


async def test_a_page_that_was_not_answered_is_offered_again(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that lost the question comes back without an answer to it."""
    monkeypatch.setattr(server, "_PEOPLE_S", 0.0)
    async with door.client(door.token(), led=Person(door)) as client:
        first = await required(client)
        second = await ask(client, state=first.request_state)

    assert isinstance(second, InputRequiredResult)
    assert [*requests(first)] == [*requests(second)]


async def test_a_state_works_once(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replayed it is refused, and its call goes on as it was."""
    monkeypatch.setattr(server, "_PEOPLE_S", 0.0)
    async with door.client(door.token(), led=Person(door)) as client:
        state = (await required(client)).request_state
        await ask(client, state=state)
        await assert_refused(client, state)

    assert ["proposed"] == [effect.state for effect in door.effects(session(door).run_id)]


async def test_a_state_is_for_its_arguments(door: Door) -> None:
    """What people are asked for is not exchanged for something else."""
    async with door.client(door.token(), led=Person(door)) as client:
        state = (await required(client)).request_state
        await assert_refused(client, state, {"text": "something else"})

    assert 1 == len(door.effects(session(door).run_id))


async def test_a_state_is_for_its_session(door: Door) -> None:
    """Neither another seat's nor the same key's next session may come back with it."""
    key = door.key()
    async with door.client(door.token(key), led=Person(door)) as client:
        state = (await required(client)).request_state
    for token in (door.token(key), door.token()):
        async with door.client(token, led=Person(door)) as client:
            await assert_refused(client, state)

    assert [0, 0, 1] == [len(door.effects(run.run_id)) for run in door.sessions()]


async def test_a_state_that_was_changed_or_is_old_is_refused(door: Door) -> None:
    """It is sealed by the installation: a bit, another key, or its end, and it is worth nothing."""
    async with door.client(door.token(), led=Person(door)) as client:
        state = str((await required(client)).request_state)
        codec = AESGCMRequestStateCodec([door.interlock.key_for("mcp/request-state")])
        claims = json.loads(codec.unseal(state))
        old = codec.seal(json.dumps(claims | {"exp": claims["iat"]}).encode())
        foreign = AESGCMRequestStateCodec([door.interlock.key_for("else")])
        other = "B" if state[60] == "A" else "A"
        for bad in (
            state[:60] + other + state[61:],
            old,
            foreign.seal(codec.unseal(state)),
            '{"id":"1","key":"k","answered":[]}',
            "",
        ):
            await assert_refused(client, bad)

    assert door.interlock.config.approval_ttl_s == pytest.approx(claims["exp"] - claims["iat"])
    assert 1 == len(door.effects(session(door).run_id))


async def test_a_state_outlives_its_server(
    tmp_path: Path, recorder: Recorder, default_database_url: str
) -> None:
    """It was sealed by one process and is opened by the next, which goes on with the same call."""
    project = session_files(recorder.url, approved=("keyed",))
    with Door(tmp_path, project, url=default_database_url, public_url=PUBLIC) as door:
        token = door.token()
        async with door.client(token, led=Person(door)) as client:
            state = (await required(client)).request_state
    with Door(tmp_path, project, url=default_database_url, public_url=PUBLIC) as door:
        door.approve(session(door).run_id)
        async with door.client(token, led=Person(door)) as client:
            done = await ask(client, state=state)

        assert isinstance(done, CallToolResult)
        assert not done.is_error, text_of(done)
        assert 1 == len(door.effects(session(door).run_id))


async def test_the_key_of_an_attempt_comes_back_with_its_state(
    door: Door, recorder: Recorder
) -> None:
    """A caller that names its attempt hears of the same call by both."""
    before = len(recorder.log().effects)
    person = Person(door, approves=True)
    async with door.client(door.token(), led=person) as client:
        done = await client.call_tool(TOOL, PLEASE, meta=named("order-7"))
        again = await client.call_tool(TOOL, PLEASE, meta=named("order-7"))

    assert text_of(done) == text_of(again)
    assert 1 == len(recorder.log().effects) - before


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_who_cannot_be_led_gets_a_handle(door: Door, mode: str) -> None:
    """So does every client of the older revision: what it can do is not said with its call."""
    led = Person(door) if mode == "legacy" else None
    async with door.client(door.token(), mode=mode, led=led) as client:
        pending = await client.call_tool(TOOL, PLEASE)

    assert "interlock/handle" in meta_of(pending)


async def test_without_a_public_address_there_is_no_link(
    tmp_path: Path, recorder: Recorder, default_database_url: str
) -> None:
    """An address of this machine would lead nobody else anywhere."""
    project = session_files(recorder.url, approved=("keyed",))
    with Door(tmp_path, project, url=default_database_url) as door:
        async with door.client(door.token(), led=Person(door)) as client:
            pending = await client.call_tool(TOOL, PLEASE)

    assert "interlock/handle" in meta_of(pending)

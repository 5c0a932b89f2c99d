"""Runs over REST from start to end: a worker, a tool that records, and people who answer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from interlock.domain.canonical import JsonObject
from interlock.domain.ids import RunId
from interlock.domain.principal import Role
from interlock.domain.run import RunState
from interlock.observe.bodies import CLASS_KEY
from interlock.store import retention
from interlock.testing.recorder import Fault, Recorder
from interlock.testing.recorder_project import TOOL_OF, WORKFLOW_OF, files
from tests.serve.plane import API, Plane, body_of, error_of, rows

TEXT: JsonObject = {"text": "hello"}


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Run a recording tool server."""
    with Recorder(tmp_path) as running:
        yield running


@pytest.fixture
def working(tmp_path: Path, recorder: Recorder) -> Iterator[Plane]:
    """An installation at work, whose writes wait for the group `data-owners`."""
    with Plane(tmp_path) as opened:
        opened.apply(files(recorder.url, approve=True))
        opened.interlock.start()
        yield opened


async def start(plane: Plane, token: str, effect_class: str, key: str | None = None) -> JsonObject:
    """Start a run that makes one call of a class."""
    headers = {} if key is None else {"Idempotency-Key": key}
    body: JsonObject = {"workflow": WORKFLOW_OF[effect_class], "input": TEXT}
    return body_of(await plane.send("POST", f"{API}/runs", token=token, body=body, headers=headers))


def until(plane: Plane, run: JsonObject, *states: RunState) -> None:
    """Wait until a run is in one of these states."""
    plane.interlock.wait_for(RunId(str(run["run_id"])), *states)


async def only(plane: Plane, token: str, noun: str, query: str = "") -> JsonObject:
    """Return the one thing that a list holds."""
    listed = body_of(await plane.send("GET", f"{API}/{noun}{query}", token=token))
    (found,) = rows(listed, noun)
    return found


async def test_a_call_waits_for_the_right_person_and_goes_once(
    working: Plane, recorder: Recorder
) -> None:
    """The answer binds to the digest shown, is the group's to give, and works once."""
    ops = working.key(Role.OPERATOR, Role.VIEWER, name="ops")
    stranger = working.key(Role.APPROVER, name="sam", groups=["platform"])
    dana = working.key(Role.APPROVER, name="dana", groups=["data-owners"])
    run = await start(working, ops, "keyed", "order-7")
    assert run["run_id"] == (await start(working, ops, "keyed", "order-7"))["run_id"]
    until(working, run, RunState.WAITING)

    asked = await only(working, dana, "approvals")
    address = f"{API}/approvals/{asked['approval_id']}/answer"
    yes: JsonObject = {"answer": "approve", "digest": asked["digest"]}
    not_theirs = await working.send("POST", address, token=stranger, body=yes)
    not_shown = await working.send("POST", address, token=dana, body={**yes, "digest": "sha256:0"})
    assert 0 == len(recorder.log().effects)
    given = await working.send("POST", address, token=dana, body=yes)
    until(working, run, RunState.SUCCEEDED)
    again = await working.send("POST", address, token=dana, body=yes)

    assert [403, 409, 200, 409] == [
        answer.status_code for answer in (not_theirs, not_shown, given, again)
    ]
    assert ("approved", "dana") == (body_of(given)["state"], body_of(given)["answered_by"])
    assert 1 == len(recorder.log().effects)


async def test_a_run_tells_what_it_did(working: Plane) -> None:
    """Steps, cost, trace, effects with their reasons: each is one request."""
    ops = working.key(Role.OPERATOR, name="ops")
    run = await start(working, ops, "read")
    until(working, run, RunState.SUCCEEDED)
    address = f"{API}/runs/{run['run_id']}"

    shown = body_of(await working.send("GET", address, token=ops))
    trace = body_of(await working.send("GET", f"{address}/trace", token=ops))
    effect = await only(working, ops, "effects")
    whole = body_of(await working.send("GET", f"{API}/effects/{effect['effect_id']}", token=ops))
    undo = body_of(await working.send("GET", f"{address}/compensation", token=ops))

    steps = rows(shown, "steps")
    assert [("call", "done")] == [(step["name"], step["state"]) for step in steps]
    assert ("succeeded", 0, []) == (shown["state"], shown["cost_micro_usd"], shown["children"])
    assert TOOL_OF["read"] in str(trace)
    assert "read-default" in str(whole["decisions"])
    assert {"effects": []} == undo


async def test_an_undo_does_not_begin_in_a_run_that_is_being_deleted(working: Plane) -> None:
    """It would find half of the effects, undo those, and say that all is undone."""
    ops = working.key(Role.OPERATOR, name="ops")
    run = await start(working, ops, "read")
    until(working, run, RunState.SUCCEEDED)
    run_id, db = RunId(str(run["run_id"])), working.interlock.db
    later = partial(retention.begin, root_id=run_id, before_us=2**62)

    began = db.run("test.begin", later)
    refused = await working.send("POST", f"{API}/runs/{run_id}/compensate", token=ops)

    assert (True, 409) == (began, refused.status_code)
    assert "is being deleted" in str(error_of(refused))


async def test_what_a_contract_classes_is_shown_to_nobody_who_reads_calls(
    tmp_path: Path, recorder: Recorder
) -> None:
    """A token stands in the list, in the call, in its decisions and in the trace."""
    project = files(recorder.url)
    tool = f"tools/{TOOL_OF['keyed']}.yaml"
    classed = f"text: {{type: string, {CLASS_KEY}: pii}}"
    text = project[tool].replace("text: {type: string, maxLength: 200}", classed)
    answered = f"body: {{type: object, properties: {{{classed}}}}}"
    project[tool] = text.replace("{id: {type: string},", f"{{id: {{type: string}}, {answered},")
    with Plane(tmp_path) as plane:
        plane.apply(project)
        plane.interlock.start()
        ops = plane.key(Role.OPERATOR, name="ops")
        run = await start(plane, ops, "keyed")
        until(plane, run, RunState.SUCCEEDED)

        listed = await only(plane, ops, "effects")
        whole = await plane.send("GET", f"{API}/effects/{listed['effect_id']}", token=ops)
        trace = await plane.send("GET", f"{API}/runs/{run['run_id']}/trace", token=ops)

        assert 1 == len(recorder.log().effects)
        assert "token:" in str(listed["arguments"])
        assert [] == [shown for shown in (str(listed), whole.text, trace.text) if "hello" in shown]
        assert 1 == len(rows(body_of(whole), "decisions"))


async def test_a_parked_effect_is_settled_by_a_person(tmp_path: Path, recorder: Recorder) -> None:
    """Its run goes on, nothing is sent again, and it can be settled once."""
    with Plane(tmp_path) as working:
        working.apply(files(recorder.url))
        working.interlock.start()
        await _settle(working, recorder)


async def _settle(working: Plane, recorder: Recorder) -> None:
    ops = working.key(Role.OPERATOR, name="ops")
    recorder.arm(Fault(kind="reset", path="/blind/items"))
    run = await start(working, ops, "blind")
    until(working, run, RunState.WAITING)

    parked = await only(working, ops, "effects", "?state=parked")
    settle = f"{API}/effects/{parked['effect_id']}/settle"
    without = await working.send("POST", settle, token=ops, body={"answer": "done", "reason": ""})
    said: JsonObject = {"answer": "done", "reason": "I see it there", "external_id": "7"}
    settled = await working.send("POST", settle, token=ops, body=said)
    until(working, run, RunState.SUCCEEDED)
    again = await working.send("POST", settle, token=ops, body=said)

    assert [422, 200, 409] == [answer.status_code for answer in (without, settled, again)]
    assert "confirmed_done" == body_of(settled)["state"]
    assert 1 == len(recorder.log().effects)


async def test_what_cannot_be_started_is_refused(working: Plane) -> None:
    """An unknown workflow, input that breaks its contract, a key used for other input."""
    ops = working.key(Role.OPERATOR, name="ops")

    async def ask(body: JsonObject, key: str) -> tuple[int, str, str]:
        headers = {"Idempotency-Key": key}
        return error_of(
            await working.send("POST", f"{API}/runs", token=ops, body=body, headers=headers)
        )

    await start(working, ops, "read", "same")
    unknown = await ask({"workflow": "nothing"}, "a")
    broken = await ask({"workflow": WORKFLOW_OF["read"], "input": {"text": 7}}, "b")
    reused = await ask({"workflow": WORKFLOW_OF["read"], "input": {"text": "other"}}, "same")

    assert (404, "not_found", "there is no workflow `nothing`") == unknown
    assert (400, "contract.violated") == broken[:2]
    assert (409, "trigger.body_changed") == reused[:2]

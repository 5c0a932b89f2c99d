"""Whole runs on the real tracker: started by its webhooks, undone, and asked why there are two."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import uvicorn

from interlock import config as configs
from interlock.app import Interlock
from interlock.domain.effect import EffectState
from interlock.domain.ids import RunId
from interlock.domain.run import Run, RunState
from interlock.observe.questions import why_duplicates
from interlock.serve.http import create_app
from interlock.store import runs
from interlock.testing.model import ScriptedModel
from tests.acceptance import gateway
from tests.acceptance.desk import (
    BOT,
    CREATE,
    EVE,
    EXAMPLE,
    OPEN_PART,
    OPS,
    REPLY,
    TWO_PARTS,
    Desk,
    Tracker,
    at_work,
    project,
    settings,
)
from tests.acceptance.gateway import Gateway, Passing

SECRET = "whsec_" + base64.b64encode(b"thirty-two bytes of a shared key").decode()


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracker]:
    """A tracker that the tests of this file share; each takes tickets of its own."""
    with Tracker(Tracker.init(tmp_path_factory.mktemp("world") / "tracker")) as running:
        yield running


@pytest.fixture
def desk(tracker: Tracker, default_database_url: str, tmp_path: Path) -> Iterator[Desk]:
    """An installation at work."""
    config = settings(
        tmp_path / "data", default_database_url, secret=tracker.secret(), crash_file=None
    )
    with at_work(config, project(tracker.url)) as working:
        yield working


# --- webhooks


def test_ticket_told_while_we_are_away_and_then_twice_starts_one_run(
    default_database_url: str, tmp_path: Path
) -> None:
    """The first delivery finds nobody, the answer to the second is lost: one run, one outcome."""
    with ExitStack() as world:
        door = world.enter_context(gateway.before("http://127.0.0.1:9"))
        tracker = world.enter_context(_telling(door, tmp_path))
        model = world.enter_context(_model(tmp_path / "model"))
        with tracker.client("bob") as bob:
            ticket = {"title": "Printing", "description": "The label printers are offline again."}
            bob.post("/issue", json=ticket).raise_for_status()
        away = door.passed.get(timeout=20)
        door.spoil = _losing_the_first(202)
        interlock = world.enter_context(
            _served(door, tracker, model, tmp_path, default_database_url)
        )
        told = [_accepted(door) for _ in range(2)]

        run = interlock.wait_for(RunId(str(told[0]["run_id"])), RunState.SUCCEEDED, RunState.FAILED)
        with interlock.db.reading() as tx:
            started = [r for r in runs.list_runs(tx) if r.request.parent_id is None]
        state = tracker.ticket("13")

    assert 502 == away.status
    assert [True, False] == [answer["is_new"] for answer in told]
    assert [run.run_id] * 3 == [started[0].run_id, *(answer["run_id"] for answer in told)]
    assert 1 == len(started)
    assert (RunState.SUCCEEDED, "linked") == (run.state, run.end_state), run.error_message
    assert {"priority": "high", "status": "open", "assignedto": "netops"} == state


# --- undo


def test_run_that_fails_late_is_undone_latest_first(desk: Desk, tracker: Tracker) -> None:
    """Each undo is asked for like any call of its tool, and the second follows the first."""
    run_id = desk.start(TWO_PARTS, "undone", ticket="1")

    for _ in range(2):
        assert RunState.WAITING is desk.held(run_id).state
        desk.answer(run_id, "approve")
        desk.interlock.wait_for(run_id, RunState.WAITING, RunState.FAILED)
    run = desk.held(run_id)

    first, second = desk.effects(run_id, CREATE)
    replies = desk.effects(run_id, REPLY)
    assert (RunState.FAILED, "call.conflict") == (run.state, run.error_code)
    assert {EffectState.COMPENSATED} == {first.state, second.state}
    assert [second.effect_id, first.effect_id] == [e.compensates for e in replies]
    assert 1 == len(tracker.replies(str(first.external_id)))
    assert 1 == len(tracker.replies(str(second.external_id)))


def test_refused_undo_keeps_what_came_before_it(desk: Desk, tracker: Tracker) -> None:
    """Nothing earlier is undone past a refusal, and the run says what stands."""
    run_id = desk.start(TWO_PARTS, "refused", ticket="2")

    desk.held(run_id)
    desk.answer(run_id, "reject")
    run = _ended(desk, run_id)

    first, second = desk.effects(run_id, CREATE)
    refused = "approval.rejected: `mara` of `it-service-desk` rejected the call: not today"
    why = {second.effect_id: refused, first.effect_id: "an effect after it is not undone"}
    left = [
        {"effect_id": effect_id, "tool": CREATE, "is_undone": False, "why": reason}
        for effect_id, reason in why.items()
    ]
    assert {"undo": left} == run.output
    assert {EffectState.SUCCEEDED} == {first.state, second.state}
    assert [] == tracker.replies(str(first.external_id))


# --- duplicates


def test_same_thing_by_two_triggers_is_asked_and_explained(desk: Desk, tracker: Tracker) -> None:
    """A person is asked about the second; if it is made, the question names both triggers."""
    one = desk.held(desk.start(OPEN_PART, "Replace the toner", ticket="6", by=OPS))
    other = desk.start(OPEN_PART, "replace  the TONER!", ticket="6", by=EVE)

    asked = desk.held(other)
    desk.answer(other, "approve")
    _ended(desk, other)

    with desk.interlock.db.reading() as tx:
        answer = why_duplicates(tx, OPS.tenant, 0)
    (group,) = answer.groups
    assert (RunState.SUCCEEDED, RunState.WAITING) == (one.state, asked.state)
    assert ("two_triggers", CREATE, 2) == (group.cause, group.tool, group.n)
    assert [one.run_id, other] == [row.run_id for row in group.rows]
    assert "6 | replace the toner" == group.key_text
    assert "1 approved by a person" in answer.paragraph
    opened = tracker.opened_as("Replace the toner", "replace  the TONER!")
    assert [1, 1] == [len(rows) for rows in opened.values()]


def test_same_thing_at_the_same_time_is_made_once(desk: Desk, tracker: Tracker) -> None:
    """Of two runs that begin together one writes and the other is asked about; refused, it ends."""
    both = [desk.start(OPEN_PART, "Twins", ticket="7", by=by) for by in (OPS, EVE)]

    states = {run_id: desk.held(run_id).state for run_id in both}
    (asked,) = (run_id for run_id, state in states.items() if state is RunState.WAITING)
    desk.answer(asked, "reject")
    refused = _ended(desk, asked)

    with desk.interlock.db.reading() as tx:
        groups = why_duplicates(tx, OPS.tenant, 0).groups
    assert {RunState.SUCCEEDED, RunState.WAITING} == set(states.values())
    assert (RunState.FAILED, "approval.rejected") == (refused.state, refused.error_code)
    assert 1 == len(tracker.opened_as("Twins")["Twins"])
    assert () == groups


def _ended(desk: Desk, run_id: RunId) -> Run:
    return desk.interlock.wait_for(run_id, RunState.SUCCEEDED, RunState.FAILED)


def _accepted(door: Gateway) -> dict[str, object]:
    """Return our next answer to a delivery; before it nobody may have been there."""
    while True:
        passing = door.passed.get(timeout=20)
        if passing.status == 202:
            answer: dict[str, object] = json.loads(passing.body)
            return answer


def _losing_the_first(status: int) -> gateway.Spoil:
    left = [status]

    def lose(passing: Passing) -> bytes:
        if left and passing.status == left[0]:
            left.pop()
            return b""
        return gateway.leave(passing)

    return lose


def _telling(door: Gateway, folder: Path) -> Tracker:
    """Return a tracker that tells the door of new tickets."""
    (folder / "webhook").write_text(SECRET)
    home = Tracker.init(folder / "tracker")
    told = f"{door.url}/webhooks/roundup"
    return Tracker(home, "--webhook-url", told, "--webhook-secret-file", str(folder / "webhook"))


def _model(folder: Path) -> ScriptedModel:
    return ScriptedModel(EXAMPLE / "models" / "demo.yaml", folder=folder)


@contextmanager
def _served(
    door: Gateway, tracker: Tracker, model: ScriptedModel, folder: Path, database_url: str
) -> Iterator[Interlock]:
    """Serve the example as it is set up for its demonstration, behind the door."""
    variables = {
        "INTERLOCK_DATA_DIR": str(folder / "data"),
        "INTERLOCK_MODELS__DEFAULT__BASE_URL": model.base_url,
        "INTERLOCK_DATABASE_URL": "" if database_url.startswith("sqlite") else database_url,
    }
    interlock = Interlock.open(configs.load(EXAMPLE, variables))
    interlock.secrets.set(BOT, tracker.secret(), by="tests")
    interlock.secrets.set("secret://servicedesk/dev/webhook", SECRET, by="tests")
    interlock.apply(project(tracker.url), by=OPS, diff=None)
    interlock.start()
    server = uvicorn.Server(uvicorn.Config(create_app(interlock), log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        door.upstream = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            yield interlock
        finally:
            server.should_exit = True
            thread.join()
            interlock.close()

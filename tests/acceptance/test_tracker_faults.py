"""The real tracker is away, answers garbage or was changed by a person: nothing is lost or lied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from interlock.calls import reconcile
from interlock.domain.effect import EffectState
from interlock.domain.run import RunState
from tests.acceptance import gateway
from tests.acceptance.desk import (
    CREATE,
    FIND,
    OPEN_PART,
    OPS,
    SET_TICKET,
    UPDATE,
    Desk,
    Tracker,
    at_work,
    project,
    settings,
)
from tests.acceptance.gateway import Gateway, Passing, Spoil

GARBAGE: dict[str, Spoil] = {
    "no answer": lambda _passing: b"",
    "not HTTP": lambda _passing: b"*** stack smashing detected ***\r\n\r\n",
    "a page": lambda passing: passing.answer(200, b"<html>Please sign in</html>"),
    "half of it": lambda passing: passing.answer(201, passing.body[: len(passing.body) // 2]),
    "cut short": lambda passing: passing.answer(201, passing.body)[:-5],
    "not a number": lambda passing: passing.answer(201, b'{"data": {"id": NaN}}'),
    "another shape": lambda passing: passing.answer(201, b'{"data": {"id": {"x": 1}}}'),
    "an error": lambda passing: passing.answer(500, b'{"error": "disk full"}'),
    "an unknown refusal": lambda passing: passing.answer(418, b"{}"),
}


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracker]:
    """A tracker that the tests of this file share; each takes tickets of its own."""
    with Tracker(Tracker.init(tmp_path_factory.mktemp("world") / "tracker")) as running:
        yield running


@pytest.fixture
def between(tracker: Tracker) -> Iterator[Gateway]:
    """What stands between the tracker and us."""
    with gateway.before(tracker.url) as running:
        yield running


@pytest.fixture
def desk(
    tracker: Tracker, between: Gateway, default_database_url: str, tmp_path: Path
) -> Iterator[Desk]:
    """An installation that reaches the tracker through the gateway."""
    config = settings(
        tmp_path / "data", default_database_url, secret=tracker.secret(), crash_file=None
    )
    with at_work(config, project(between.url)) as working:
        yield working


@pytest.fixture
def near(tracker: Tracker, default_database_url: str, tmp_path: Path) -> Iterator[Desk]:
    """An installation that reaches the tracker itself."""
    config = settings(
        tmp_path / "data", default_database_url, secret=tracker.secret(), crash_file=None
    )
    with at_work(config, project(tracker.url)) as working:
        yield working


def test_change_by_a_person_in_between_is_a_conflict(
    desk: Desk, tracker: Tracker, between: Gateway
) -> None:
    """What a person wrote after our read stays, and the run takes its declared way out."""

    def edit(passing: Passing) -> None:
        if passing.method == "PUT":
            tracker.change("1", priority="low", status="closed")

    between.before = edit

    run_id = desk.start(SET_TICKET, "in between", ticket="1")
    run = desk.held(run_id)

    effect = desk.effect(run_id, UPDATE)
    assert (RunState.SUCCEEDED, "changed_meanwhile") == (run.state, run.end_state)
    assert (EffectState.FAILED_DEFINITE, "call.conflict") == (effect.state, effect.error_code)
    expected = {"priority": "low", "status": "closed", "assignedto": "netops"}
    assert expected == tracker.ticket("1")
    assert 0 == tracker.changes_by_bot("1")


def test_change_whose_answer_is_lost_is_made_once(
    desk: Desk, tracker: Tracker, between: Gateway
) -> None:
    """The second send is refused by the version, and the ticket proves that the first was done."""
    between.spoil = _spoiling("PUT", GARBAGE["no answer"])

    run_id = desk.start(SET_TICKET, "answer lost", ticket="2")
    run = desk.held(run_id)

    effect = desk.effect(run_id, UPDATE)
    assert (RunState.SUCCEEDED, "done") == (run.state, run.end_state)
    assert EffectState.SUCCEEDED is effect.state
    assert 1 == tracker.changes_by_bot("2")


def test_change_that_a_person_changed_again_is_not_called_undone(
    desk: Desk, tracker: Tracker, between: Gateway
) -> None:
    """Answer lost, then changed by a person: the ticket proves nothing, so a person is asked."""

    def lose_and_edit(_passing: Passing) -> bytes:
        tracker.change("3", priority="low")
        return b""

    between.spoil = _spoiling("PUT", lose_and_edit)

    run_id = desk.start(SET_TICKET, "changed again", ticket="3")
    run = desk.held(run_id)

    assert 1 == tracker.changes_by_bot("3")
    assert "low" == tracker.ticket("3")["priority"]
    assert (RunState.WAITING, EffectState.PARKED) == (
        run.state,
        desk.effect(run_id, UPDATE).state,
    )


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_in_place_of_an_answer_is_unknown_and_then_found(
    desk: Desk, tracker: Tracker, between: Gateway, kind: str
) -> None:
    """The ticket was opened: no garbage makes the call a failure, and nothing opens a second."""
    between.spoil = _spoiling("POST", GARBAGE[kind], at="/rest/data/issue/@poe/")
    words = f"garbage {kind}"

    run_id = desk.start(OPEN_PART, words)
    run = desk.held(run_id)

    effect = desk.effect(run_id, CREATE)
    assert (RunState.SUCCEEDED, EffectState.SUCCEEDED) == (run.state, effect.state)
    assert {words: [(effect.external_id, effect.effect_id)]} == tracker.opened_as(words)
    seen = desk.seen(effect)
    assert "reply.unknown" == seen[0]
    assert "reply.nothing_done" not in seen


def test_tracker_that_stays_unreadable_leaves_it_to_a_person(
    desk: Desk, tracker: Tracker, between: Gateway
) -> None:
    """Neither answer nor probe can be read: parked, and a person's word ends the run."""
    is_out_of_order = False

    def break_down(passing: Passing) -> bytes:
        nonlocal is_out_of_order
        is_out_of_order |= "/@poe/" in passing.path
        return GARBAGE["a page"](passing) if is_out_of_order else gateway.leave(passing)

    between.spoil = break_down

    run_id = desk.start(OPEN_PART, "unreadable")
    parked = desk.held(run_id)

    effect = desk.effect(run_id, CREATE)
    assert (RunState.WAITING, EffectState.PARKED) == (parked.state, effect.state)
    ((number, reference),) = tracker.opened_as("unreadable")["unreadable"]
    assert effect.effect_id == reference
    assert {EffectState.FAILED_DEFINITE} == {e.state for e in desk.effects(run_id, FIND)}

    reconcile.settle(
        desk.interlock.db,
        desk.interlock.dispatch,
        effect.effect_id,
        by=OPS,
        answer="done",
        reason="I see it on the page",
        external_id=number,
    )

    ended = desk.interlock.wait_for(run_id, RunState.SUCCEEDED)
    effect = desk.effect(run_id, CREATE)
    assert ("done", EffectState.CONFIRMED_DONE) == (ended.end_state, effect.state)
    assert number == effect.external_id


def test_tracker_that_is_away_is_a_definite_failure_with_its_fallback(
    near: Desk, tracker: Tracker
) -> None:
    """Four attempts, none of which left; the run ends as declared and nothing was opened."""
    with _away(tracker):
        run_id = near.start(OPEN_PART, "away")
        run = near.held(run_id)

    effect = near.effect(run_id, CREATE)
    assert (RunState.SUCCEEDED, "by_hand") == (run.state, run.end_state)
    assert (EffectState.FAILED_DEFINITE, "call.not_sent", 4) == (
        effect.state,
        effect.error_code,
        effect.attempt,
    )
    assert "no one-time link from `tracker-dev`: " in str(effect.error_message)
    assert {"away": []} == tracker.opened_as("away")


def test_tracker_that_comes_back_gets_the_call_once(near: Desk, tracker: Tracker) -> None:
    """The attempts go on after a first failure, and the one that arrives counts."""
    with _away(tracker):
        run_id = near.start(OPEN_PART, "back again")
        near.interlock.wait_for(run_id, RunState.WAITING)

    run = near.held(run_id)

    effect = near.effect(run_id, CREATE)
    assert (RunState.SUCCEEDED, "done") == (run.state, run.end_state)
    assert 1 < effect.attempt
    assert {"back again": [(effect.external_id, effect.effect_id)]} == tracker.opened_as(
        "back again"
    )


def _spoiling(method: str, spoil: Spoil, *, at: str = "/") -> Spoil:
    """Spoil the first answer to such a request, and leave all others."""
    left = [spoil]

    def once(passing: Passing) -> bytes:
        is_it = passing.method == method and passing.path.startswith(at)
        return left.pop()(passing) if left and is_it else gateway.leave(passing)

    return once


@contextmanager
def _away(tracker: Tracker) -> Iterator[None]:
    """Kill the tracker, and start it again at the same address."""
    tracker.kill()
    try:
        yield
    finally:
        tracker.start()

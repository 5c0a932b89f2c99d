"""Calls in sessions: made once, finished by whoever owns the run, ended with the last token."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from interlock.calls.approve import answer
from interlock.calls.road import CallResult, CallState
from interlock.domain.errors import (
    InputError,
    IntakeFullError,
    KeyTakenError,
    UnauthenticatedError,
    UnavailableError,
)
from interlock.domain.ids import ExecutorId, RunId
from interlock.domain.run import RunState
from interlock.domain.trace import SpanKind
from interlock.runtime.durable import segment
from interlock.runtime.outside import desk, session, sessions
from interlock.runtime.outside.desk import Pending
from interlock.runtime.outside.exchange import ACCESS_S, refresh_session
from interlock.runtime.outside.session import END_TOPIC
from interlock.runtime.outside.sessions import Sessions
from interlock.store import approvals, journal, runs, spans
from interlock.testing.recorder import Fault, Recorder
from interlock.testing.recorder_project import session_files
from tests.road_bench import DANA
from tests.runtime.outside.session_bench import LIMIT_S, SessionBench


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    """The recording tool server."""
    with Recorder(tmp_path_factory.mktemp("recorder")) as server:
        yield server


@pytest.fixture
def bench(default_database_url: str, recorder: Recorder) -> Iterator[SessionBench]:
    """A road on which writes of the class `probed` wait for `data-owners`."""
    project = session_files(recorder.url, approved=("probed",))
    with SessionBench(default_database_url, project) as opened:
        yield opened


def say(bench: SessionBench, run_id: RunId, word: str) -> None:
    """Let Dana answer all that a session asks."""
    for effect in bench.effects(run_id):
        with bench.db.reading() as tx:
            asked = approvals.list_for_effect(tx, effect.effect_id)
        for approval in asked:
            answer(
                bench.db,
                bench.engine.dispatch,
                approval.approval_id,
                by=DANA,
                answer="approve" if word == "approve" else "reject",
                digest=approval.digest,
                reason=word,
            )


def ended(found: CallResult | Pending) -> CallResult:
    """Return the end of a call that must have one."""
    assert isinstance(found, CallResult)
    return found


def test_a_call_is_a_step_of_the_session(bench: SessionBench) -> None:
    """One effect under the agent's seat, and its span below the agent's in the run's trace."""
    run_id = bench.open().run_id

    made = ended(bench.call(run_id))
    (effect,) = bench.effects(run_id)
    with bench.db.reading() as tx:
        traced = {span.key: span for span in spans.list_for_run(tx, run_id)}

    assert (CallState.SUCCEEDED, made.effect_id) == (made.state, effect.effect_id)
    assert "call/k1" == effect.step_name
    assert "helper" == traced["call/k1"].parent_key
    assert SpanKind.AGENT is traced["helper"].kind


def test_a_session_that_rests_goes_on_with_the_next_call(bench: SessionBench) -> None:
    """Between calls the run waits, owned by nobody; what was done stays done."""
    run_id = bench.open().run_id
    first = ended(bench.call(run_id))
    bench.rest(run_id)

    second = ended(bench.call(run_id, key="k2"))
    again = ended(bench.call(run_id))

    assert first == again
    assert first.effect_id != second.effect_id
    assert 2 == len(bench.effects(run_id))


def test_a_key_is_one_call_also_after_a_rest(bench: SessionBench) -> None:
    """Other arguments under it are refused before anything is decided."""
    run_id = bench.open().run_id
    bench.call(run_id)
    with pytest.raises(KeyTakenError):
        bench.call(run_id, text="b")
    bench.rest(run_id)
    with pytest.raises(KeyTakenError):
        bench.call(run_id, text="b")

    assert 1 == len(bench.effects(run_id))


def test_what_people_approve_is_made_without_the_agent(bench: SessionBench) -> None:
    """The call waits as rows; the answer wakes the run, which makes it."""
    run_id = bench.open().run_id
    asked = bench.call(run_id, "probed")
    bench.rest(run_id)
    still = bench.call(run_id, "probed")
    say(bench, run_id, "approve")
    bench.engine.run_until_idle()

    assert isinstance(asked, Pending)
    assert isinstance(still, Pending)
    assert "approval" == asked.waits_for == still.waits_for
    assert CallState.SUCCEEDED is ended(bench.call(run_id, "probed")).state


def test_what_people_reject_is_told(bench: SessionBench) -> None:
    """The reason is a result like any other."""
    run_id = bench.open().run_id
    bench.call(run_id, "probed")
    bench.rest(run_id)
    say(bench, run_id, "not today")
    bench.engine.run_until_idle()

    assert CallState.REJECTED is ended(bench.call(run_id, "probed")).state


def test_an_answer_is_heard_while_other_calls_go_on(bench: SessionBench) -> None:
    """An agent that never rests does not keep its own pending call from being made."""
    run_id = bench.open().run_id
    bench.call(run_id, "probed")
    say(bench, run_id, "approve")

    found = bench.call(run_id, "probed")
    for number in range(2000):
        bench.call(run_id, key=f"busy{number}")
        found = bench.call(run_id, "probed")
        if isinstance(found, CallResult):
            break
    assert CallState.SUCCEEDED is ended(found).state


def test_asking_again_does_not_wake_what_waits_for_people(bench: SessionBench) -> None:
    """However often an agent polls, the run is not claimed for it."""
    run_id = bench.open().run_id
    bench.call(run_id, "probed")
    before = bench.rest(run_id)
    for _ in range(3):
        bench.call(run_id, "probed")

    assert before == bench.get(run_id)


def test_a_session_ends_with_its_last_token(bench: SessionBench) -> None:
    """A refresh keeps it; without one it is over when the token is."""
    key = bench.key()
    opened = bench.open(key)
    bench.call(opened.run_id)
    bench.rest(opened.run_id)
    bench.clock.advance(ACCESS_S - 10)
    refresh_session(bench.intake, key, str(opened.refresh))
    bench.engine.advance(20)
    assert RunState.WAITING is bench.rest(opened.run_id).state

    bench.engine.advance(ACCESS_S)
    run = bench.rest(opened.run_id, RunState.SUCCEEDED)

    assert "expired" == run.end_state
    with pytest.raises(UnauthenticatedError):
        bench.call(opened.run_id, key="late")


def test_what_waits_for_people_outlives_the_token(bench: SessionBench) -> None:
    """An agent that has left takes nothing back; once it is answered the session ends."""
    run_id = bench.open().run_id
    bench.call(run_id, "probed")
    bench.rest(run_id)
    bench.engine.advance(ACCESS_S + 1)
    assert RunState.WAITING is bench.get(run_id).state
    say(bench, run_id, "approve")
    bench.engine.run_until_idle()

    assert RunState.SUCCEEDED is bench.rest(run_id, RunState.SUCCEEDED).state
    assert ["succeeded"] == [effect.state for effect in bench.effects(run_id) if effect.is_write]


def test_a_session_is_ended_by_a_signal(bench: SessionBench) -> None:
    """It ends in the state `closed`."""
    run_id = bench.open().run_id
    bench.call(run_id)
    bench.rest(run_id)
    bench.end(run_id, END_TOPIC)

    assert "closed" == bench.rest(run_id, RunState.SUCCEEDED).end_state


def test_a_call_that_waits_for_its_turn_holds_nothing(
    default_database_url: str, recorder: Recorder
) -> None:
    """Once nobody listens its run waits like any other: it can be handed on, or cancelled."""
    project = session_files(recorder.url)
    project["workflows/outside.yaml"] += "rate: {calls: 1, per_s: 3600}\n"
    with SessionBench(default_database_url, project) as bench:
        patient = bench.sessions
        run_id = bench.open().run_id
        bench.call(run_id)
        bench.rest(run_id)
        bench.sessions = Sessions(bench.desks, bench.engine, patience_s=0.05)
        for key in ("k2", "k3"):
            assert_held(bench, run_id, key)
        before = bench.rest(run_id)
        assert_held(bench, run_id, "k2")
        assert before == bench.get(run_id)
        bench.engine.advance(3600)
        bench.sessions = patient
        assert CallState.SUCCEEDED is ended(bench.call(run_id, key="k2")).state
        bench.rest(run_id)
        bench.db.run("cancel", lambda tx: bench.engine.dispatch.cancel(tx, run_id))
        bench.engine.run_until_idle()

        assert RunState.CANCELLED is bench.get(run_id).state


def assert_held(bench: SessionBench, run_id: RunId, key: str) -> None:
    """Ask for a call until it is told to wait for its turn."""
    for _ in range(100):
        found = bench.call(run_id, key=key)
        assert isinstance(found, Pending)
        if found.waits_for == "rate":
            return
    raise AssertionError("it does not wait for its turn")


def test_the_end_of_a_session_cuts_off_nothing(
    bench: SessionBench, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that its tool is at work on is recorded as it ends, not left to a person."""
    # So that the call comes while the session is about to wait, and the end is heard meanwhile.
    monkeypatch.setattr(segment, "_SETTLE_S", 0.3)
    run_id = bench.open().run_id
    bench.call(run_id, "read", key="before")
    bench.moments(10)
    done = len(recorder.log().effects)
    recorder.arm(Fault(kind="hang", seconds=2.5))
    going_on = bench.submit(run_id)
    recorder.wait_for(effects=done + 1)
    dispatch = bench.engine.dispatch
    bench.db.run("end", lambda tx: dispatch.signal(tx, run_id, END_TOPIC, {}, dedupe_key="end"))

    assert CallState.SUCCEEDED is ended(going_on.result(LIMIT_S)).state
    assert "closed" == bench.rest(run_id, RunState.SUCCEEDED).end_state


def test_a_caller_that_leaves_takes_nothing_back(bench: SessionBench, recorder: Recorder) -> None:
    """Its connection may break in the middle of a write, which goes on and is told afterwards."""
    done = len(recorder.log().effects)
    recorder.arm(Fault(kind="hang", seconds=1.0))
    run_id = bench.open().run_id
    left = bench.submit(run_id)
    recorder.wait_for(effects=done + 1)
    left.cancel()

    assert CallState.SUCCEEDED is ended(bench.call(run_id)).state
    assert 1 == len(recorder.log().effects) - done


def test_open_calls_of_a_session_are_bounded(
    bench: SessionBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next is refused; those that are open are asked about and taken up again all the same."""
    monkeypatch.setattr(desk, "MOST_OPEN", 2)
    run_id = bench.open().run_id
    bench.call(run_id, "probed")
    bench.call(run_id, "probed", key="k2")
    with pytest.raises(IntakeFullError, match="2 calls of this session are open"):
        bench.call(run_id, key="k3")
    bench.rest(run_id)
    monkeypatch.setattr(desk, "MOST_OPEN", 1)
    with pytest.raises(IntakeFullError):
        bench.call(run_id, key="k3")

    assert isinstance(bench.call(run_id, "probed", key="k2"), Pending)
    assert RunState.WAITING is bench.rest(run_id).state


def test_what_waits_for_people_outlives_the_end_of_its_session(bench: SessionBench) -> None:
    """Its agent closes it in good order; who does not trust the agent cancels it."""
    run_id = bench.open().run_id
    bench.call(run_id, "probed")
    bench.rest(run_id)
    bench.end(run_id, END_TOPIC)
    assert RunState.WAITING is bench.rest(run_id).state
    say(bench, run_id, "approve")
    bench.engine.run_until_idle()

    assert RunState.SUCCEEDED is bench.rest(run_id, RunState.SUCCEEDED).state
    assert ["succeeded"] == [effect.state for effect in bench.effects(run_id) if effect.is_write]


def test_a_cancelled_session_sends_nothing_more(bench: SessionBench) -> None:
    """What people were asked becomes void, and later calls are refused."""
    run_id = bench.open().run_id
    bench.call(run_id, "probed")
    bench.rest(run_id)
    bench.db.run("cancel", lambda tx: bench.engine.dispatch.cancel(tx, run_id))
    bench.engine.run_until_idle()

    assert RunState.CANCELLED is bench.get(run_id).state
    assert ["denied"] == [effect.state for effect in bench.effects(run_id)]
    assert "run.cancelled" == ended(bench.call(run_id, "probed")).code
    with pytest.raises(UnauthenticatedError):
        bench.call(run_id, key="k2")


def test_a_call_that_was_taken_is_never_called_unavailable(
    bench: SessionBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another process has the session: pending if it was noted, else come again."""
    monkeypatch.setattr(sessions, "_OWNER_S", 0.1)
    run_id = bench.open().run_id
    bench.call(run_id, "probed")
    run = bench.rest(run_id)
    claim = partial(runs.claim, run_id=run_id, executor_id=ExecutorId("elsewhere"))
    bench.db.run("wake", lambda tx: bench.engine.dispatch.wake(tx, runs.lock_any(tx, run_id)))
    bench.db.run("claim", lambda tx: claim(tx, segment=run.segment))

    found = bench.call(run_id, "probed")
    assert isinstance(found, Pending)
    assert "approval" == found.waits_for
    with pytest.raises(UnavailableError, match="send the call again"):
        bench.call(run_id, key="k2")


def test_what_cannot_be_opened_here_is_forgotten(
    bench: SessionBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is asked for sessions that it cannot have does not grow."""
    monkeypatch.setattr(sessions, "_OWNER_S", 0.1)
    run_id = bench.open().run_id
    bench.db.run("pause", lambda tx: bench.engine.dispatch.pause(tx, run_id))
    with pytest.raises(UnavailableError):
        bench.call(run_id)

    assert not bench.desks.has(run_id)


def test_a_paused_session_says_so(bench: SessionBench) -> None:
    """And goes on when it is resumed."""
    run_id = bench.open().run_id
    bench.call(run_id)
    bench.rest(run_id)
    bench.db.run("pause", lambda tx: bench.engine.dispatch.pause(tx, run_id))
    with pytest.raises(UnavailableError, match="paused"):
        bench.call(run_id, key="k2")
    bench.db.run("resume", lambda tx: bench.engine.dispatch.resume(tx, run_id))

    assert CallState.SUCCEEDED is ended(bench.call(run_id, key="k2")).state


def test_arguments_that_cannot_be_kept_are_refused(bench: SessionBench) -> None:
    """And the session goes on: what cannot be noted is never noted."""
    run_id = bench.open().run_id
    with pytest.raises(InputError, match="the call has 1100075 bytes"):
        bench.call(run_id, key="large", text="a" * 1_100_000)

    assert CallState.SUCCEEDED is ended(bench.call(run_id)).state
    assert 1 == len(bench.effects(run_id))


def test_a_long_session_is_taken_over_like_a_new_one(
    bench: SessionBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has ended is put away: kept, told again by its key, and not read by the next owner."""
    monkeypatch.setattr(session, "_TOGETHER", 4)
    run_id = bench.open().run_id
    first = [ended(bench.call(run_id, key=f"k{number}")) for number in range(8)]
    for _ in range(2):
        again = [ended(bench.call(run_id, key=f"k{number}")) for number in range(8)]
        with pytest.raises(KeyTakenError):
            bench.call(run_id, key="k0", text="b")
        bench.rest(run_id)
        assert first == again
        ended(bench.call(run_id, key=f"after{bench.get(run_id).epoch}"))
    bench.rest(run_id)

    with bench.db.reading() as tx:
        loaded = journal.load(tx, run_id, kinds=("session.call",))
        asked = session.find_asked(tx, run_id, "k0")
    assert 4 >= len(loaded)
    assert asked is not None
    assert 10 == len(bench.effects(run_id))


def test_calls_of_a_session_are_bounded(
    bench: SessionBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that made very many is told to open another; what it asked for is still told."""
    monkeypatch.setattr(session, "MOST_CALLS", 3)
    monkeypatch.setattr(session, "_TOGETHER", 1)
    run_id = bench.open().run_id
    first = bench.call(run_id)
    bench.call(run_id, key="before")
    bench.rest(run_id)
    bench.call(run_id, key="last")
    with pytest.raises(IntakeFullError, match="open another"):
        bench.call(run_id, key="k2")

    assert first == bench.call(run_id)

"""Calls that their agent takes back: what has not begun is not made any more, all else goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from interlock.calls.approve import answer
from interlock.calls.pipeline import waits_for
from interlock.calls.road import Call, CallResult, CallState
from interlock.domain.approval import Approval, ApprovalState
from interlock.domain.errors import ConflictError
from interlock.domain.ids import RunId, ToolName
from interlock.domain.principal import DEFAULT_TENANT
from interlock.domain.run import RunState
from interlock.domain.switch import Scope
from interlock.runtime.outside import desk
from interlock.runtime.outside.desk import Pending
from interlock.runtime.outside.session import END_TOPIC, Seen, look
from interlock.runtime.outside.sessions import Sessions
from interlock.runtime.outside.withdraw import Withdrawal, withdraw
from interlock.store import approvals, switches
from interlock.testing.recorder import Fault, Recorder
from interlock.testing.recorder_project import TOOL_OF, session_files
from tests.road_bench import DANA
from tests.runtime.outside.session_bench import LIMIT_S, SessionBench

HOUR_S = 3600
RATE = "rate: {calls: 1, per_s: 3600}\n"


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


def take_back(bench: SessionBench, run_id: RunId, key: str = "k1") -> Withdrawal:
    """Take a call back."""
    return bench.db.run("withdraw", lambda tx: withdraw(tx, bench.engine.dispatch, run_id, key))


def seen(bench: SessionBench, run_id: RunId, key: str = "k1") -> Seen:
    """Return how a call stands."""
    with bench.db.reading() as tx:
        found = look(tx, run_id, key)
    assert found is not None
    return found


def asked(bench: SessionBench, run_id: RunId) -> list[Approval]:
    """Return what people were asked of a session."""
    effects = bench.effects(run_id)
    with bench.db.reading() as tx:
        return [
            approval
            for effect in effects
            for approval in approvals.list_for_effect(tx, effect.effect_id)
        ]


def approve(bench: SessionBench, approval: Approval) -> None:
    """Approve a call as Dana."""
    answer(
        bench.db,
        bench.engine.dispatch,
        approval.approval_id,
        by=DANA,
        answer="approve",
        digest=approval.digest,
    )


def assert_withdrawn(bench: SessionBench, run_id: RunId, key: str = "k1") -> None:
    """Its end says who ended it, and so does its row."""
    stands = seen(bench, run_id, key).stands
    assert isinstance(stands, CallResult)
    assert (CallState.DENIED, "call.withdrawn") == (stands.state, stands.code)
    (effect,) = (one for one in bench.effects(run_id) if one.effect_id == stands.effect_id)
    assert ("denied", "call.withdrawn") == (effect.state, effect.error_code)


def waiting(bench: SessionBench, run_id: RunId, key: str, what: str) -> None:
    """Ask for a call until it waits for its turn, then let the session rest."""
    patient = bench.sessions
    bench.sessions = Sessions(bench.desks, bench.engine, patience_s=0.05)
    for _ in range(100):
        found = bench.call(run_id, key=key)
        assert isinstance(found, Pending)
        if found.waits_for == what:
            break
    bench.sessions = patient
    bench.rest(run_id)


@pytest.mark.parametrize("run_is", ["waiting", "running"])
def test_what_waits_for_people_is_taken_back(
    bench: SessionBench, recorder: Recorder, run_is: str
) -> None:
    """Nobody can approve it any more, whether its run rests or is owned just then."""
    before = len(recorder.log().effects)
    run_id = bench.open().run_id
    bench.call(run_id, "probed")
    if run_is == "waiting":
        bench.rest(run_id)

    done = take_back(bench, run_id)

    (approval,) = asked(bench, run_id)
    assert ("withdrawn", ApprovalState.VOID) == (done, approval.state)
    with pytest.raises(ConflictError):
        approve(bench, approval)
    bench.engine.run_until_idle()
    bench.rest(run_id)
    assert_withdrawn(bench, run_id)
    assert len(recorder.log().effects) == before
    assert [ApprovalState.VOID] == [one.state for one in asked(bench, run_id)]


def test_a_call_is_taken_back_in_the_moment_before_it_waits(
    bench: SessionBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People are asked with the decision, and its run waits for them after: it hears all the same.

    Else it would find nobody asked, and ask anew.
    """
    run_id = bench.open().run_id
    told, done = desk._Open.told, list[Withdrawal]()

    def take_back_then(self: desk._Open, call: Call) -> None:
        told(self, call)
        if waits_for(call) == "approval":
            done.append(take_back(bench, run_id))

    monkeypatch.setattr(desk._Open, "told", take_back_then)
    bench.call(run_id, "probed")
    bench.rest(run_id)

    assert ["withdrawn"] == done
    assert_withdrawn(bench, run_id)
    assert [ApprovalState.VOID] == [one.state for one in asked(bench, run_id)]


def test_what_waits_for_its_turn_is_taken_back(
    default_database_url: str, recorder: Recorder
) -> None:
    """At once, not when its turn comes; the next call then has that turn."""
    project = session_files(recorder.url)
    project["workflows/outside.yaml"] += RATE
    with SessionBench(default_database_url, project) as bench:
        run_id = bench.open().run_id
        bench.call(run_id)
        bench.rest(run_id)
        before = len(recorder.log().effects)
        waiting(bench, run_id, "k2", "rate")
        waiting(bench, run_id, "k3", "rate")

        assert "withdrawn" == take_back(bench, run_id, "k2")
        bench.engine.run_until_idle()
        bench.rest(run_id)

        assert_withdrawn(bench, run_id, "k2")
        assert isinstance(seen(bench, run_id, "k3").stands, Pending)
        bench.engine.advance(HOUR_S)
        bench.rest(run_id, RunState.SUCCEEDED)
        third = seen(bench, run_id, "k3").stands
        assert isinstance(third, CallResult)
        assert CallState.SUCCEEDED is third.state
        assert 1 == len(recorder.log().effects) - before


def test_what_was_approved_and_waits_for_its_turn_is_taken_back(
    default_database_url: str, recorder: Recorder
) -> None:
    """Its row is stored, and the approval that it did not use is void."""
    project = session_files(recorder.url, approved=("probed",))
    project["workflows/outside.yaml"] += RATE
    with SessionBench(default_database_url, project) as bench:
        run_id = bench.open().run_id
        bench.call(run_id, key="k0")
        bench.call(run_id, "probed")
        bench.rest(run_id)
        approve(bench, *asked(bench, run_id))
        bench.engine.run_until_idle()
        bench.rest(run_id)
        stands = seen(bench, run_id).stands
        assert isinstance(stands, Pending)
        assert "rate" == stands.waits_for

        assert "withdrawn" == take_back(bench, run_id)
        bench.engine.run_until_idle()
        bench.rest(run_id)

        assert_withdrawn(bench, run_id)
        assert [ApprovalState.VOID] == [one.state for one in asked(bench, run_id)]


def test_what_a_kill_switch_holds_is_taken_back(bench: SessionBench) -> None:
    """Although calls of its kind are stopped: it waits for no lift, and nothing is sent."""
    run_id = bench.open().run_id
    bench.call(run_id, "probed")
    bench.rest(run_id)
    scope = Scope(tool=ToolName(TOOL_OF["probed"]))
    bench.db.run(
        "stop",
        lambda tx: switches.put(
            tx, DEFAULT_TENANT, scope, reason="a test", by="ops", expires_us=None
        ),
    )
    approve(bench, *asked(bench, run_id))
    bench.engine.run_until_idle()
    bench.rest(run_id)
    stands = seen(bench, run_id).stands
    assert isinstance(stands, Pending)
    assert "switch" == stands.waits_for

    assert "withdrawn" == take_back(bench, run_id)
    bench.engine.run_until_idle()
    bench.rest(run_id)

    assert_withdrawn(bench, run_id)


def test_what_is_under_way_or_over_is_not_taken_back(
    bench: SessionBench, recorder: Recorder
) -> None:
    """Its outcome is recorded as it comes, and stays."""
    run_id = bench.open().run_id
    before = len(recorder.log().effects)
    recorder.arm(Fault(kind="hang", seconds=1.0))
    going_on = bench.submit(run_id)
    recorder.wait_for(effects=before + 1)
    during = take_back(bench, run_id)
    made = going_on.result(LIMIT_S)
    after = take_back(bench, run_id)

    assert ("begun", "begun") == (during, after)
    assert isinstance(made, CallResult)
    assert CallState.SUCCEEDED is made.state
    assert made == seen(bench, run_id).stands


def test_what_was_approved_is_not_taken_back_any_more(bench: SessionBench) -> None:
    """Between the answer and the intent nothing shows that it has not begun."""
    run_id = bench.open().run_id
    bench.call(run_id, "probed")
    bench.rest(run_id)
    approve(bench, *asked(bench, run_id))

    assert "in_hand" == take_back(bench, run_id)
    bench.engine.run_until_idle()
    bench.rest(run_id)
    stands = seen(bench, run_id).stands
    assert isinstance(stands, CallResult)
    assert CallState.SUCCEEDED is stands.state


def test_a_call_is_looked_at_without_being_made(bench: SessionBench) -> None:
    """A look claims nothing and writes nothing; a key that was not used has nothing to see."""
    run_id = bench.open().run_id
    bench.call(run_id, "probed")
    before = bench.rest(run_id)
    first = seen(bench, run_id)
    bench.clock.advance(60)
    approve(bench, *asked(bench, run_id))
    bench.engine.run_until_idle()
    bench.rest(run_id)
    last = seen(bench, run_id)
    with bench.db.reading() as tx:
        nothing = look(tx, run_id, "k2")

    assert before.epoch < bench.get(run_id).epoch
    assert isinstance(first.stands, Pending)
    assert isinstance(last.stands, CallResult)
    assert first.asked == last.asked
    assert first.asked_us == first.changed_us == last.asked_us < last.changed_us
    assert nothing is None


def test_a_session_ends_once_all_is_taken_back(bench: SessionBench) -> None:
    """What was taken back keeps nothing open."""
    run_id = bench.open().run_id
    bench.call(run_id, "probed")
    bench.rest(run_id)
    take_back(bench, run_id)
    bench.end(run_id, END_TOPIC)

    assert "closed" == bench.rest(run_id, RunState.SUCCEEDED).end_state

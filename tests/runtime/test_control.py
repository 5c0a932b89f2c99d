"""What people do to live runs: they pause and resume whole trees, and signal what is waited for."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import AgentInfo

from interlock.calls import reconcile
from interlock.domain.effect import EffectState
from interlock.domain.errors import ConflictError, InputError
from interlock.domain.ids import AgentName, ExecutorId, RunId
from interlock.domain.principal import Principal, PrincipalKind, Role
from interlock.domain.run import RunState
from interlock.domain.workflow import AutonomyDeclaration, Step
from interlock.runtime import control
from interlock.store import leases
from interlock.store.tables.calls import effect as table
from tests.runtime.plane import CREATE, Plane, agent, calls, open_plane, release, workflow

WAIT = Step(name="hold", wait="go", timeout_s=3600)
MAKE = Step(name="make", tool=CREATE, args={"title": "input:/title"})
OPERATOR = Principal(name="ann", kind=PrincipalKind.USER, roles=frozenset({Role.OPERATOR}))
UNKNOWN = sorted(reconcile.UNKNOWN)


def states(plane: Plane, *run_ids: RunId) -> list[RunState]:
    """Return the states of runs, once nothing moves."""
    plane.engine.run_until_idle()
    return [plane.get(run_id).state for run_id in run_ids]


def test_a_signal_is_heard_once(tmp_path: Path) -> None:
    """The step returns its value; the same key of the same person is the same signal."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(WAIT)))
        run_id = plane.start()

        def send(key: str | None) -> bool:
            run, dispatch = plane.get(run_id), plane.engine.dispatch
            return control.signal(plane.db, dispatch, run, "go", {"n": 1}, by="ann", key=key)

        sent = [send("k"), send("k"), send(None)]

        assert [True, False, True] == sent
        assert [RunState.SUCCEEDED] == states(plane, run_id)
        assert {"hold": {"n": 1}} == plane.get(run_id).output
        with pytest.raises(ConflictError, match="has ended"):
            send("later")


@pytest.mark.parametrize("topic", ["approval/1", "time/hold/wait", "child/1", "gone"])
def test_only_topics_of_the_workflow_can_be_signalled(tmp_path: Path, topic: str) -> None:
    """Nobody forges an approval, the end of a child or of a wait."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(WAIT)))
        run = plane.get(plane.start())

        with pytest.raises(InputError, match=f"waits for `{topic}`, only for `go`"):
            control.signal(plane.db, plane.engine.dispatch, run, topic, None, by="ann", key=None)


def test_a_pause_reaches_the_children_and_so_does_the_resume(tmp_path: Path) -> None:
    """The tree stands still and goes on as one; what is repeated has nothing to do."""

    def solver(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return calls((CREATE, {"title": "vpn"}))

    careful = {"dev": AutonomyDeclaration(level=1, by="ann", reason="test")}
    handoff = Step(name="solve", handoff=AgentName("solver"))
    with open_plane(tmp_path, solver=solver) as plane:
        plane.apply(release(workflow(handoff, autonomy=careful), agent("solver")))
        run_id = plane.start()
        tree, dispatch = (run_id, plane.child(run_id).run_id), plane.engine.dispatch

        waiting = states(plane, *tree)
        paused = [control.pause(plane.db, dispatch, run_id) for _ in range(2)]
        still = states(plane, *tree)
        resumed = [control.resume(plane.db, dispatch, run_id) for _ in range(2)]

        assert [RunState.WAITING] * 2 == waiting == states(plane, *tree)
        assert ([RunState.PAUSED] * 2, [True, False], [True, False]) == (still, paused, resumed)


def set_aside(plane: Plane, state: EffectState = EffectState.INTENT) -> RunId:
    """Return a run whose worker was taken for dead, for good, while its call was under way."""

    def give_up() -> None:
        worker = ExecutorId("memory")
        plane.db.run("test", lambda tx: leases.takeover(tx, worker, max_recoveries=0))

    plane.desk.is_watched_by = give_up
    plane.apply(release(workflow(MAKE)))
    run_id = plane.start()
    plane.desk.is_watched_by = lambda: None
    plane.db.run("test", lambda tx: tx.connection.execute(table.update().values(state=state)))
    assert (RunState.DEAD_LETTERED, [state]) == (plane.get(run_id).state, left(plane, run_id))
    return run_id


def left(plane: Plane, run_id: RunId) -> list[EffectState]:
    """Return how the effects of a run stand."""
    return [effect.state for effect in plane.effects(run_id)]


@pytest.mark.parametrize("state", UNKNOWN)
def test_cancelling_a_dead_letter_leaves_its_open_calls_to_people(
    tmp_path: Path, state: EffectState
) -> None:
    """Nothing is sent again; what perhaps was done is parked, and can be settled."""
    with open_plane(tmp_path) as plane:
        run_id = set_aside(plane, state)
        dispatch = plane.engine.dispatch

        assert plane.db.run("test", lambda tx: dispatch.cancel(tx, run_id))
        assert [RunState.CANCELLED] == states(plane, run_id)
        (parked,) = plane.effects(run_id)
        settled = reconcile.settle(
            plane.db,
            dispatch,
            parked.effect_id,
            by=OPERATOR,
            answer="done",
            reason="it is there",
        )

        assert (EffectState.PARKED, EffectState.CONFIRMED_DONE) == (parked.state, settled.state)
        assert (["vpn"], [RunState.CANCELLED]) == (plane.desk.titles, states(plane, run_id))


@pytest.mark.parametrize("state", UNKNOWN)
def test_resuming_a_dead_letter_takes_its_open_calls_over(
    tmp_path: Path, state: EffectState
) -> None:
    """As after any lost worker: the run waits for a person where only one can tell."""
    with open_plane(tmp_path) as plane:
        run_id = set_aside(plane, state)
        dispatch = plane.engine.dispatch

        assert control.resume(plane.db, dispatch, run_id)
        assert ([RunState.WAITING], [EffectState.PARKED]) == (
            states(plane, run_id),
            left(plane, run_id),
        )
        reconcile.settle(
            plane.db,
            dispatch,
            plane.effects(run_id)[0].effect_id,
            by=OPERATOR,
            answer="absent",
            reason="nothing there",
        )

        assert ([RunState.FAILED], ["vpn"]) == (states(plane, run_id), plane.desk.titles)
        assert (0, "effect.absent") == (
            plane.get(run_id).recoveries,
            plane.get(run_id).error_code,
        )

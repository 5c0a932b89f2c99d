"""What people do to live runs: they pause and resume whole trees, and signal what is waited for."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import AgentInfo

from interlock.domain.errors import ConflictError, InputError
from interlock.domain.ids import AgentName, RunId
from interlock.domain.run import RunState
from interlock.domain.workflow import AutonomyDeclaration, Step
from interlock.runtime import control
from tests.runtime.plane import CREATE, Plane, agent, calls, open_plane, release, workflow

WAIT = Step(name="hold", wait="go", timeout_s=3600)


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

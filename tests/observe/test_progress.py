from __future__ import annotations

from pathlib import Path

from interlock.domain.ids import AgentName, RunId
from interlock.domain.workflow import Condition, FailureMode, Step, WorkflowSpec
from interlock.observe.progress import StepProgress, progress
from interlock.store import runs
from tests.runtime.plane import (
    CREATE,
    FIND,
    Plane,
    agent,
    open_plane,
    release,
    text,
    workflow,
)

LOOK = Step(name="look", tool=FIND, args={"title": "vpn"})
WAIT = Step(name="reply", wait="reply")
NEVER = Step(name="never", tool=FIND, args={}, when=(Condition(at="input:/title", equals="other"),))
REFUSED = Step(name="refused", tool=CREATE, args={"titel": "typo"})
TELL = Step(name="tell", tool=FIND, args={"title": "told"})


def steps_of(plane: Plane, run_id: RunId, spec: WorkflowSpec) -> tuple[StepProgress, ...]:
    """Return the progress of a run."""
    return plane.read(lambda tx: progress(tx, runs.get(tx, run_id), spec))


def states_of(plane: Plane, run_id: RunId, spec: WorkflowSpec) -> dict[str, str]:
    """Return the state of each step."""
    return {step.name: step.state for step in steps_of(plane, run_id, spec)}


def test_done_skipped_waiting_and_to_come_are_told_apart(tmp_path: Path) -> None:
    """A run that waits shows where it stands."""
    modes = (FailureMode(code="*", then="step", target="tell", end="told"),)
    spec = workflow(LOOK, NEVER, WAIT, REFUSED, TELL, failure_modes=modes)
    with open_plane(tmp_path) as plane:
        plane.apply(release(spec))
        run_id = plane.start()

        assert {
            "look": "done",
            "never": "skipped",
            "reply": "waiting",
            "refused": "to_come",
            "tell": "not_reached",
        } == states_of(plane, run_id, spec)


def test_a_failed_step_shows_why_and_what_took_over(tmp_path: Path) -> None:
    """Reason and fallback are part of the step that failed, also if the run went on."""
    modes = (FailureMode(code="*", then="step", target="tell", end="told"),)
    spec = workflow(REFUSED, LOOK, TELL, failure_modes=modes)
    with open_plane(tmp_path) as plane:
        plane.apply(release(spec))
        run_id = plane.start()

        failed = steps_of(plane, run_id, spec)[0]
        assert ("failed", "contract.violated", "step tell") == (
            failed.state,
            failed.error_code,
            failed.fallback,
        )
        assert "titel" in str(failed.error_message)
        assert {"refused": "failed", "look": "not_reached", "tell": "done"} == states_of(
            plane, run_id, spec
        )


def test_a_run_that_has_not_begun_has_everything_to_come(tmp_path: Path) -> None:
    """Nothing is running while a run is queued."""
    spec = workflow(LOOK, WAIT)
    with open_plane(tmp_path) as plane:
        plane.apply(release(spec))
        run_id = plane.queue()

        assert {"look": "to_come", "reply": "to_come"} == states_of(plane, run_id, spec)


def test_a_child_run_has_one_step(tmp_path: Path) -> None:
    """The run of a hand-off shows its agent."""
    solver = AgentName("solver")
    spec = workflow(Step(name="solve", handoff=solver))
    with open_plane(tmp_path, solver=lambda _messages, _info: text("done")) as plane:
        plane.apply(release(spec, agent("solver")))
        run_id = plane.start()

        parent = steps_of(plane, run_id, spec)
        child = steps_of(plane, plane.child(run_id).run_id, spec)

        assert [("handoff", "solver", "done")] == [(s.kind, s.what, s.state) for s in parent]
        assert [("agent", "solver", "done")] == [(s.kind, s.what, s.state) for s in child]

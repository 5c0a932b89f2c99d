"""Records the histories that are replayed: `python -m tests.histories.record` writes them anew.

Only for what is new, or after a change that may break runs under way, and then says so in the
changelog: a history that is written anew to make a test pass hides what the test is for.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import AgentInfo

from interlock.domain.ids import AgentName, RunId
from interlock.domain.release import Release
from interlock.domain.tool import Compensation, EffectClass, Group
from interlock.domain.workflow import FailureMode, Step
from interlock.testing import history
from interlock.testing.clock import ManualClock
from tests.runtime.plane import (
    CREATE,
    FIND,
    RETIRE,
    TOOLS,
    Plane,
    agent,
    calls,
    open_plane,
    release,
    text,
    tool,
    workflow,
)

FOLDER = Path(__file__).parent
FINDER, SOLVER = AgentName("finder"), AgentName("solver")
LOOK = Step(name="look", tool=FIND, args={"title": "input:/title"})
MAKE = Step(name="make", tool=CREATE, args={"title": "step:look/found"})
WAIT = Step(name="reply", wait="reply", timeout_s=3600)
REFUSED = Step(name="refused", tool=CREATE, args={"titel": "typo"})
UNDOABLE = tool(
    CREATE,
    Group.WRITE,
    EffectClass.BLIND,
    compensation=Compensation(tool=RETIRE, version=1, args={"title": "out:/id"}),
)


class Ticking(ManualClock):
    """A clock that moves on with every look, so that rows say in which order they were written."""

    def now_us(self) -> int:
        """Return a later time than ever before."""
        self.advance(0.000001)
        return super().now_us()


def model(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    """Look and make, both at once, then say that it is done."""
    if len(messages) > 1:
        return text("done")
    return calls((FIND, {"title": "vpn"}), (CREATE, {"title": "vpn"}))


def _nothing(_plane: Plane, _run_id: RunId) -> None:
    """Let the run end by itself."""


def _reply(plane: Plane, run_id: RunId) -> None:
    plane.signal(run_id, "reply", {"is_ok": True})


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A project, and what is done to its run so that it ends."""

    project: Release
    then: Callable[[Plane, RunId], None] = _nothing


SCENES = {
    "agent": Scene(project=release(workflow(Step(name="find", agent=FINDER)), agent("finder"))),
    "compensation": Scene(
        project=release(
            workflow(
                LOOK, MAKE, REFUSED, failure_modes=(FailureMode(code="*", then="compensate"),)
            ),
            tools=(TOOLS[0], UNDOABLE, TOOLS[2]),
        )
    ),
    "fallback": Scene(
        project=release(
            workflow(
                REFUSED,
                LOOK,
                failure_modes=(
                    FailureMode(code="contract", then="step", target="look", end="done"),
                ),
            )
        )
    ),
    "handoff": Scene(
        project=release(
            workflow(Step(name="solve", handoff=SOLVER, input={"t": "input:/title"})),
            agent("solver"),
        )
    ),
    "tool": Scene(project=release(workflow(LOOK, MAKE))),
    "wait": Scene(project=release(workflow(LOOK, WAIT, MAKE)), then=_reply),
}


def write(folder: Path, names: list[str]) -> None:
    """Record these scenes into a folder, one file each."""
    for name in names:
        with (
            tempfile.TemporaryDirectory() as scratch,
            open_plane(Path(scratch), ticking=Ticking(), finder=model, solver=model) as plane,
        ):
            plane.apply(SCENES[name].project)
            run_id = plane.start()
            SCENES[name].then(plane, run_id)
            recorded = history.record(plane.db, run_id)
        (folder / f"{name}.json").write_text(f"{json.dumps(recorded, indent=1)}\n")


if __name__ == "__main__":
    write(FOLDER, sys.argv[1:] or sorted(SCENES))

"""A worker that carries out a plan as a process of its own, and dies where it is told to.

What really happens is a line of FOLDER/outside; the crash point stands in FOLDER/armed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import AgentInfo

from interlock.domain.canonical import Json
from interlock.domain.ids import AgentName
from interlock.domain.run import RunState
from interlock.domain.workflow import SeatSpec, Step
from interlock.store.engine import CrashPoints
from interlock.tools.functions import PythonFunction, python_function
from tests.runtime.plane import CREATE, FIND, Desk, agent, open_plane, release, text, workflow

PLAN: Json = {
    "calls": [
        {"id": "look", "tool": FIND, "args": {"title": "vpn"}},
        {"id": "first", "tool": CREATE, "args": {"title": "call:look/found"}},
        {"id": "second", "tool": CREATE, "args": {"title": "call:first/id"}},
    ]
}


class LastingDesk(Desk):
    """A desk whose calls are written down as they happen, so that they outlast the worker."""

    outside: Path

    def note(self, line: str) -> None:
        """Write a line."""
        with self.outside.open("a") as world:
            world.write(f"{line}\n")

    def functions(self) -> Mapping[str, PythonFunction]:
        """Return the functions of the tools."""

        def find(title: str) -> Json:
            self.note(f"find {title}")
            return {"found": title}

        def create(title: str) -> Json:
            self.note(f"create {title}")
            return {"id": f"after {title}"}

        return {FIND: python_function(FIND, find), CREATE: python_function(CREATE, create)}


def work(folder: str) -> None:
    """Start or find the run of the plan and carry it out; leave how it ended in FOLDER/result."""
    place = Path(folder)
    LastingDesk.outside = place / "outside"

    def planner(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        with LastingDesk.outside.open("a") as world:
            world.write("planned\n")
        return text(json.dumps(PLAN))

    step = Step(name="act", plan=AgentName("planner"), tools=(FIND, CREATE))
    spec = workflow(step, seats=(SeatSpec(agent=AgentName("planner"), tools=(FIND,)),))
    points = CrashPoints(place / "armed")
    with open_plane(place, desk=LastingDesk, points=points, planner=planner) as plane:
        plane.apply(release(spec, agent("planner")))
        run_id = plane.queue(key="the-run")
        plane.engine.wait_for(run_id, RunState.SUCCEEDED)
        (place / "result").write_text(json.dumps(plane.get(run_id).output))

"""Kill -9 at every named point of a call to the real tracker: it holds each effect once."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from interlock.app import Interlock
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.ids import ToolName, WorkflowName
from tests.acceptance.desk import (
    CREATE,
    FIND,
    OPEN_PART,
    OPS,
    SET_TICKET,
    UPDATE,
    Tracker,
    project,
    settings,
)
from tests.acceptance.desk_worker import work
from tests.acceptance.workers import run_worker

CREATE_POINTS = (
    "call.intent.before",
    "call.intent.after",
    "send.before",
    "send.after",
    "reply.read",
    "call.outcome.before",
    "call.outcome.after",
)
UPDATE_POINTS = {"call.intent.after": "7", "send.after": "8", "call.outcome.before": "9"}
PROBE_POINTS = {  # two deaths each: a run that outlives more than three is left to a person
    "probed": ("call.probe.before", "call.probe.after"),
    # The probe's own read is open; it found the ticket, and that is not recorded.
    "found": (f"reply.read {FIND}", f"call.outcome.before {CREATE}"),
}

Started = tuple[WorkflowName, str, JsonObject]


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[Tracker]:
    """Run a tracker, which is never killed."""
    with Tracker(Tracker.init(tmp_path / "tracker")) as running:
        yield running


@dataclass(frozen=True, slots=True, kw_only=True)
class Lives:
    """One installation through the lives and deaths of its workers."""

    folder: Path
    url: str
    secret: str
    ended: dict[str, JsonObject] = field(default_factory=dict)

    def live(self, *, finish: list[Started], start: Started | None = None) -> int | None:
        """Run one worker and return its exit code; what it finished is in `ended`."""
        plan = json.dumps([finish, start])
        code = run_worker(work, str(self.folder), self.url, self.secret, plan)
        if (self.folder / "ended.json").exists():
            self.ended.update(json.loads((self.folder / "ended.json").read_text()))
        return code

    def arm(self, name: str, point: str) -> None:
        """Arm a point, in `crash` from the start or in `armed` for the run that is started."""
        (self.folder / name).write_text(point)

    def effect(self, key: str, tool: ToolName) -> JsonObject:
        """Return the one effect of a tool in a run that succeeded."""
        assert "succeeded" == self.ended[key]["state"], key
        effects = self.ended[key]["effects"]
        assert isinstance(effects, list)
        (found,) = (e for e in effects if isinstance(e, dict) and e["tool"] == tool)
        assert "succeeded" == found["state"], key
        return found


@pytest.fixture
def lives(database_url: str, tracker: Tracker, tmp_path: Path) -> Lives:
    """An installation whose project is applied and whose worker is not running."""
    config = settings(tmp_path / "data", database_url, secret=tracker.secret(), crash_file=None)
    interlock = Interlock.open(config)
    interlock.apply(project(tracker.url), by=OPS, diff=None)
    interlock.close()
    return Lives(folder=tmp_path, url=database_url, secret=tracker.secret())


@pytest.mark.timeout(180)
def test_killed_at_every_point_the_tracker_holds_each_effect_once(
    lives: Lives, tracker: Tracker
) -> None:
    """Whatever the instant of death: one ticket, or one change of a ticket, and the run ends."""
    before: list[Started] = []
    for point in CREATE_POINTS:
        before = _die(lives, before, f"{point} {CREATE}", _run(OPEN_PART, point))
    for point, ticket in UPDATE_POINTS.items():
        run = _run(SET_TICKET, f"change {point}", ticket=ticket)
        before = _die(lives, before, f"{point} {UPDATE}", run)
    for key, points in PROBE_POINTS.items():
        before = _die(lives, before, f"send.after {CREATE}", _run(OPEN_PART, key))
        for point in points:
            lives.arm("crash", point)
            assert -signal.SIGKILL == lives.live(finish=before), point

    assert 0 == lives.live(finish=before)

    keys = (*CREATE_POINTS, *PROBE_POINTS)
    wanted: dict[str, list[tuple[Json, Json]]] = {}
    for key in keys:
        effect = lives.effect(key, CREATE)
        wanted[key] = [(effect["external_id"], effect["effect_id"])]
    assert wanted == tracker.opened_as(*keys)
    for point, ticket in UPDATE_POINTS.items():
        lives.effect(f"change {point}", UPDATE)
        assert 1 == tracker.changes_by_bot(ticket), point
        expected = {"priority": "critical", "status": "waiting", "assignedto": "itsec"}
        assert expected == tracker.ticket(ticket), point


def _run(workflow: WorkflowName, key: str, *, ticket: str = "6") -> Started:
    return workflow, key, {"ticket": ticket, "words": key}


def _die(lives: Lives, before: list[Started], point: str, start: Started) -> list[Started]:
    """Finish what the last worker left, and leave the next run to the next worker."""
    lives.arm("armed", point)
    assert -signal.SIGKILL == lives.live(finish=before, start=start), point
    return [start]
